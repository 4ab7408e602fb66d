import {type Runtime, TensorFlowError} from '../native/runtime.js';
import {userLine} from '../user-line.js';
import {boolAttr} from './attributes.js';
import type {Binding, Metadata} from './binding.js';
import {executeAsync, type Operand} from './execute-async.js';
import {addNode, addPlaceholder, contentOf, finishTrace, type GraphValue, startTrace, type Trace} from './trace.js';

/** Shape and TensorFlow dtype of one argument. */
export interface Signature {
  readonly shape: readonly number[];
  readonly dtype: number;
}

/** A traced body registered with TensorFlow; it runs as one operation. */
export interface CompiledFunction {
  readonly name: string;
  readonly numNodes: number;
  readonly numOutputs: number;
  /** The eager tensors the body uses besides its arguments. */
  readonly captures: readonly Operand[];
}

type Body = (inputs: readonly number[]) => readonly number[];

/**
 * Traces `body` once with arguments of the given signatures and registers the function.
 *
 * It is named after its content: bodies that differ only in the variables they use share one program, and XLA compiles
 * it once. Programs stay for the life of the process.
 */
export function traceFunction(
  binding: Binding,
  name: string,
  signatures: readonly Signature[],
  body: Body,
): CompiledFunction {
  if (binding.trace) throw nestedCall();
  return registerBody(binding, name, signatures, body);
}

/** The same of a function that a node of the one being traced calls, such as the turn of a loop; its name. */
export function traceInner(binding: Binding, name: string, signatures: readonly Signature[], body: Body): string {
  const inner = registerBody(binding, name, signatures, body);
  if (inner.captures.length > 0) throw new Error(`${name} uses tensors that it was not given`);
  return inner.name;
}

function registerBody(binding: Binding, name: string, signatures: readonly Signature[], body: Body): CompiledFunction {
  const {trace, inputs, outputs} = traceBody(binding, signatures, body, {recordLines: false});
  const unique = `${name}_${contentOf(trace, outputs)}`;
  try {
    if (!binding.functions.has(unique)) finishTrace(binding.runtime, trace, unique, inputs, outputs);
    binding.functions.add(unique);
  } finally {
    binding.runtime.c.TF_DeleteGraph(trace.graph);
  }
  return {name: unique, numNodes: trace.nodes, numOutputs: outputs.length, captures: capturesOf(binding, trace)};
}

function capturesOf({names}: Binding, {captures}: Trace): Operand[] {
  return [...captures.keys()].map((id) => {
    const name = names.get(id);
    return {id, what: name === undefined ? 'a tensor' : `variable ${name}`};
  });
}

/** The line of user code behind the node that an error message of XLA names, or null. */
export function lineOfFailure(
  binding: Binding,
  message: string,
  signatures: readonly Signature[],
  body: Body,
): string | null {
  const {trace} = traceBody(binding, signatures, body, {recordLines: true});
  binding.runtime.c.TF_DeleteGraph(trace.graph);
  const named = [...message.matchAll(/\{\{node ([^}]+)\}\}/g)].map(([, node]) => trace.lines?.get(node ?? ''));
  return named.find((line) => line !== undefined) ?? null;
}

/**
 * Runs the function with the given tensors on a worker thread of the runtime.
 *
 * @throws TensorFlowError with XLA's message if it cannot be compiled; Error if a captured tensor was disposed.
 */
export async function callFunction(
  binding: Binding,
  fn: CompiledFunction,
  inputs: readonly number[],
): Promise<Metadata[]> {
  if (binding.trace) throw nestedCall();
  return executeAsync(binding, {
    op: fn.name,
    attributes: [boolAttr('_XlaMustCompile', true)],
    operands: [...inputs.map((id) => ({id, what: 'an input'})), ...fn.captures],
    numOutputs: fn.numOutputs,
    device: binding.runtime.accelerator,
  });
}

function traceBody(
  binding: Binding,
  signatures: readonly Signature[],
  body: Body,
  options: {readonly recordLines: boolean},
): {trace: Trace; inputs: GraphValue[]; outputs: GraphValue[]} {
  const {runtime, trace: outer} = binding;
  const trace = startTrace(runtime, {...options, functions: binding.functions});
  binding.trace = trace;
  try {
    const inputs = signatures.map(({shape, dtype}) => addPlaceholder(runtime, trace, shape, dtype));
    const results = body(inputs.map((value) => binding.adopt(value)));
    const outputs = results.map((id) => asOutput(runtime, trace, binding.valueInTrace(id)));
    return {trace, inputs, outputs};
  } catch (error) {
    runtime.c.TF_DeleteGraph(trace.graph);
    throw error;
  } finally {
    binding.trace = outer;
    if (!outer) binding.dropGraphValues();
  }
}

function nestedCall(): Error {
  return new Error(`A compiled function was called at ${userLine()} while another one is being compiled.`);
}

/** An argument cannot be returned as it is: the output is a copy. */
function asOutput(runtime: Runtime, trace: Trace, value: GraphValue): GraphValue {
  if (value.op !== 'Placeholder') return value;
  const [copy] = addNode(runtime, trace, 'Identity', [], [value.output]);
  return copy ?? value;
}

/** Whether an error came from TensorFlow while compiling or running a function. */
export function isTensorFlowError(error: unknown): error is TensorFlowError {
  return error instanceof TensorFlowError;
}
