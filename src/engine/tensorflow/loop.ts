// A loop inside a compiled function, of as many turns as its values say when it runs.
import {check} from '../native/runtime.js';
import type {Binding} from './binding.js';
import {traceInner} from './compiled-function.js';
import {setShape} from './shared-op.js';

/** What a loop does with the ids of the values it carries. */
export interface Loop {
  /** A scalar: whether there is another turn. */
  readonly goesOn: (state: readonly number[]) => number;
  /** The values after a turn, of the shapes and dtypes they had before it. */
  readonly turn: (state: readonly number[]) => readonly number[];
}

/** The values after the last turn: `StatelessWhile`. @throws Error outside of a compiled function. */
export function runLoop(binding: Binding, state: readonly number[], {goesOn, turn}: Loop): number[] {
  const {trace, runtime} = binding;
  if (!trace) throw new Error('There are loops inside compiled functions only.');
  const values = state.map((id) => binding.valueInTrace(id));
  const condition = traceInner(binding, 'loop_goes_on', values, (ids) => [goesOn(ids)]);
  const body = traceInner(binding, 'loop_turn', values, turn);
  const {c, status} = runtime;
  const serial = trace.nodes++;
  const node = c.TF_NewOperation(trace.graph, 'StatelessWhile', `StatelessWhile_${serial}`);
  const inputs = values.map(({output}) => output);
  c.TF_AddInputList(node, inputs, inputs.length);
  const types = values.map(({dtype}) => dtype);
  c.TF_SetAttrTypeList(node, 'T', types, types.length);
  c.TF_SetAttrFuncName(node, 'cond', condition, Buffer.byteLength(condition));
  c.TF_SetAttrFuncName(node, 'body', body, Buffer.byteLength(body));
  const oper = c.TF_FinishOperation(node, status);
  check(c, status, 'StatelessWhile');
  const wires = inputs.map((input) => `${input.node}:${input.index}`).join();
  trace.digest.update(`StatelessWhile ${condition} ${body} ${wires}\n`);
  return values.map(({shape, dtype}, index) => {
    setShape(runtime, trace.graph, {oper, index}, shape);
    return binding.adopt({output: {oper, index, node: serial}, op: 'StatelessWhile', shape, dtype});
  });
}
