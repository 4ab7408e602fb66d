import {createHash, type Hash} from 'node:crypto';
import type {GraphOutput, Pointer} from '../native/c-api.js';
import {TF} from '../native/dtype.js';
import {type HostValues, toNativeTensor} from '../native/host-tensor.js';
import {check, type Runtime, TensorFlowError} from '../native/runtime.js';
import {userLine} from '../user-line.js';
import {type Attribute, setGraphAttribute, shapeAttr, typeAttr} from './attributes.js';
import {callShared, isShared} from './shared-op.js';

/** An output with the serial number of its node. */
export interface NodeOutput extends GraphOutput {
  readonly node: number;
}

/** A value inside a graph under construction: one output of a node, with what shape inference knows of it. */
export interface GraphValue {
  readonly output: NodeOutput;
  readonly op: string;
  readonly shape: readonly number[];
  readonly dtype: number;
}

/** A function body under construction. */
export interface Trace {
  readonly graph: Pointer;
  /** Eager tensors the body uses, each with the placeholder that stands for it. */
  readonly captures: Map<number, GraphValue>;
  /** Host arrays already made graph constants, by tfjs data id. */
  readonly constants: Map<object, number>;
  /** Nodes with side effects, in program order. */
  readonly effects: Pointer[];
  /** Where each node was made, if asked for: only a failed compilation needs it. */
  readonly lines: Map<string, string> | null;
  /** Digest of everything added so far: equal bodies make equal programs, which are compiled once. */
  readonly digest: Hash;
  /** Names of the functions that TensorFlow knows already. */
  readonly functions: Set<string>;
  nodes: number;
}

/** Operations that read or change state: they keep program order. */
const STATEFUL = new Set([
  'ReadVariableOp',
  'AssignVariableOp',
  'AssignAddVariableOp',
  'CollectiveReduceV2',
  'CollectiveGatherV2',
  'CollectiveReduceScatterV2',
  'CollectiveAllToAllV2',
]);

/** Operations whose inputs are one list, or a list and more; `N` is then implied. */
const LISTS: Readonly<Record<string, (inputs: readonly NodeOutput[]) => (NodeOutput | readonly NodeOutput[])[]>> = {
  ConcatV2: (inputs) => [inputs.slice(0, -1), ...inputs.slice(-1)],
  Pack: (inputs) => [inputs],
  AddN: (inputs) => [inputs],
};

/** An empty function body. */
export function startTrace(
  {c}: Runtime,
  {recordLines, functions}: {readonly recordLines: boolean; readonly functions: Set<string>},
): Trace {
  return {
    graph: c.TF_NewGraph(),
    captures: new Map(),
    constants: new Map(),
    effects: [],
    lines: recordLines ? new Map() : null,
    digest: createHash('sha256'),
    functions,
    nodes: 0,
  };
}

/** Adds an argument of the function. */
export function addPlaceholder(runtime: Runtime, trace: Trace, shape: readonly number[], dtype: number): GraphValue {
  const attributes = [typeAttr('dtype', dtype), shapeAttr('shape', shape)];
  const [value] = addNode(runtime, trace, 'Placeholder', attributes, []);
  if (!value) throw new Error('Placeholder has no output');
  return {...value, shape, dtype};
}

/** Adds a constant with a copy of host values. */
export function addConstant(
  runtime: Runtime,
  trace: Trace,
  shape: readonly number[],
  dtype: number,
  values: HostValues,
): GraphValue {
  const {c, status} = runtime;
  const tensor = toNativeTensor(runtime, shape, dtype, values);
  const serial = trace.nodes++;
  const node = c.TF_NewOperation(trace.graph, 'Const', `Const_${serial}`);
  c.TF_SetAttrTensor(node, 'value', tensor, status);
  c.TF_SetAttrType(node, 'dtype', dtype);
  const oper = c.TF_FinishOperation(node, status);
  c.TF_DeleteTensor(tensor);
  check(c, status, 'constant');
  trace.digest.update(`Const ${dtype} [${shape.join()}] `).update(ArrayBuffer.isView(values) ? values : values.join());
  return {output: {oper, index: 0, node: serial}, op: 'Const', shape, dtype};
}

/**
 * Adds an operation and returns its outputs.
 *
 * @throws TensorFlowError naming the operation and the caller's line when TensorFlow rejects it.
 */
export function addNode(
  runtime: Runtime,
  trace: Trace,
  op: string,
  attributes: readonly Attribute[],
  inputs: readonly NodeOutput[],
): GraphValue[] {
  const serial = trace.nodes++;
  const name = `${op}_${serial}`;
  const wires = inputs.map(({node, index}) => `${node}:${index}`).join();
  trace.digest.update(`${op} ${JSON.stringify(attributes)} ${wires}\n`);
  trace.lines?.set(name, userLine());
  const oper = withUserLine(() => {
    const [input] = inputs;
    return input && isShared(runtime, trace, op, input)
      ? callShared(runtime, trace, op, name, input)
      : addOperation(runtime, trace, op, name, attributes, inputs);
  });
  return outputsOf(runtime, trace, op, oper, serial);
}

function addOperation(
  {c, status}: Runtime,
  trace: Trace,
  op: string,
  name: string,
  attributes: readonly Attribute[],
  inputs: readonly NodeOutput[],
): Pointer {
  const node = c.TF_NewOperation(trace.graph, op, name);
  for (const input of LISTS[op]?.(inputs) ?? inputs) {
    if (isList(input)) c.TF_AddInputList(node, input, input.length);
    else c.TF_AddInput(node, input);
  }
  for (const attribute of attributes) {
    if (!(op in LISTS && attribute.name === 'N')) setGraphAttribute(c, node, attribute);
  }
  const previous = trace.effects.at(-1);
  if (STATEFUL.has(op) && previous) c.TF_AddControlInput(node, previous);
  const oper = c.TF_FinishOperation(node, status);
  check(c, status, op);
  if (STATEFUL.has(op)) trace.effects.push(oper);
  return oper;
}

/** What a finished body computes, as 16 hexadecimal digits. */
export function contentOf({digest}: Trace, outputs: readonly GraphValue[]): string {
  for (const {output} of outputs) digest.update(`out ${output.node}:${output.index}\n`);
  return digest.digest('hex').slice(0, 16);
}

/** Makes the finished body a function of the context, callable by name. */
export function finishTrace(
  {c, context, status}: Runtime,
  trace: Trace,
  name: string,
  inputs: readonly GraphValue[],
  outputs: readonly GraphValue[],
): void {
  const ins = [...inputs, ...trace.captures.values()].map(({output}) => output);
  const outs = outputs.map(({output}) => output);
  const effects = trace.effects.length > 0 ? trace.effects : null;
  const fn = c.TF_GraphToFunctionWithControlOutputs(
    ...([trace.graph, name, 0, -1, null, ins.length, ins, outs.length, outs, null] as const),
    ...([trace.effects.length, effects, null, null, null, status] as const),
  );
  check(c, status, `function ${name}`);
  c.TFE_ContextAddFunction(context, fn, status);
  c.TF_DeleteFunction(fn);
  check(c, status, `function ${name}`);
}

function isList(input: NodeOutput | readonly NodeOutput[]): input is readonly NodeOutput[] {
  return Array.isArray(input);
}

function withUserLine<T>(add: () => T): T {
  try {
    return add();
  } catch (error) {
    if (!(error instanceof TensorFlowError)) throw error;
    throw new TensorFlowError(`${error.message} (at ${userLine()})`, error.code);
  }
}

function outputsOf({c, status}: Runtime, {graph}: Trace, op: string, oper: Pointer, node: number): GraphValue[] {
  return Array.from({length: c.TF_OperationNumOutputs(oper)}, (_, index) => {
    const output = {oper, index, node};
    const dtype = c.TF_OperationOutputType(output);
    const rank = c.TF_GraphGetTensorNumDims(graph, output, status);
    check(c, status, op);
    if (rank <= 0 || dtype === TF.RESOURCE) return {output, op, shape: [], dtype};
    const dims: (number | bigint)[] = new Array<number>(rank).fill(0);
    c.TF_GraphGetTensorShape(graph, output, dims, rank, status);
    check(c, status, op);
    return {output, op, shape: dims.map(Number), dtype};
  });
}
