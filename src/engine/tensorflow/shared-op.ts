// Operations that take TensorFlow long to hand to XLA: all of a kind and dtype that a program has are calls of one function.
import type {GraphOutput, Pointer} from '../native/c-api.js';
import {check, type Runtime} from '../native/runtime.js';
import type {NodeOutput, Trace} from './trace.js';

/**
 * Operations of one input and one output, alike in shape and dtype, that TensorFlow 2.21 lowers through MLIR: for each node it sets
 * up MLIR anew, which takes about 10 ms. What a function gives for an input of one shape it works out once a program.
 */
const LOWERED_BY_MLIR = new Set(['Abs', 'Cos', 'Exp', 'Rsqrt', 'Sigmoid', 'Sign', 'Softmax', 'Sqrt', 'Tanh']);

/**
 * Whether an operation is called as a function rather than repeated in the graph. One of a scalar is not: TensorFlow would not
 * see before it compiles that there is none, as of `Softmax`.
 */
export function isShared({c, status}: Runtime, {graph}: Trace, op: string, input: NodeOutput): boolean {
  if (!LOWERED_BY_MLIR.has(op)) return false;
  const rank = c.TF_GraphGetTensorNumDims(graph, input, status);
  check(c, status, op);
  return rank > 0;
}

/** Adds a call of the function that computes one operation, which is made if there is none. */
export function callShared(runtime: Runtime, trace: Trace, op: string, name: string, input: NodeOutput): Pointer {
  const {c, status} = runtime;
  const {graph, functions} = trace;
  const dtype = c.TF_OperationOutputType(input);
  const fn = `shared_${op}_${dtype}`;
  if (!functions.has(fn)) defineFunction(runtime, op, fn, dtype);
  functions.add(fn);
  const node = c.TF_NewOperation(graph, 'PartitionedCall', name);
  c.TF_AddInputList(node, [input], 1);
  c.TF_SetAttrTypeList(node, 'Tout', [dtype], 1);
  c.TF_SetAttrFuncName(node, 'f', fn, Buffer.byteLength(fn));
  const call = c.TF_FinishOperation(node, status);
  check(c, status, op);
  copyShape(runtime, graph, input, {oper: call, index: 0});
  return call;
}

/** An attribute's value `true`, as a protocol buffer: field 5 of `AttrValue`, a number. */
const TRUE = Uint8Array.of(5 << 3, 1);

function defineFunction({c, context, status}: Runtime, op: string, name: string, dtype: number): void {
  const graph = c.TF_NewGraph();
  try {
    const argument = c.TF_NewOperation(graph, 'Placeholder', 'x'); // of any shape
    c.TF_SetAttrType(argument, 'dtype', dtype);
    const x = {oper: c.TF_FinishOperation(argument, status), index: 0};
    check(c, status, op);
    const node = c.TF_NewOperation(graph, op, 'y');
    c.TF_AddInput(node, x);
    const y = {oper: c.TF_FinishOperation(node, status), index: 0};
    check(c, status, op);
    const fn = c.TF_GraphToFunctionWithControlOutputs(
      ...([graph, name, 0, -1, null, 1, [x], 1, [y], null, 0, null, null, null, null, status] as const),
    );
    check(c, status, `function ${name}`);
    try {
      c.TF_FunctionSetAttrValueProto(fn, '_noinline', TRUE, TRUE.length, status); // inlined, each call would be lowered again
      check(c, status, `function ${name}`);
      c.TFE_ContextAddFunction(context, fn, status);
      check(c, status, `function ${name}`);
    } finally {
      c.TF_DeleteFunction(fn);
    }
  } finally {
    c.TF_DeleteGraph(graph);
  }
}

/** Shape inference does not look into functions. */
function copyShape(runtime: Runtime, graph: Pointer, from: GraphOutput, to: GraphOutput): void {
  const {c, status} = runtime;
  const rank = c.TF_GraphGetTensorNumDims(graph, from, status);
  check(c, status, 'shape');
  const dims: (number | bigint)[] = new Array<number>(rank).fill(0);
  c.TF_GraphGetTensorShape(graph, from, dims, rank, status);
  check(c, status, 'shape');
  setShape(runtime, graph, to, dims);
}

/** Tells a graph a shape that it cannot infer. */
export function setShape(
  {c, status}: Runtime,
  graph: Pointer,
  output: GraphOutput,
  shape: readonly (number | bigint)[],
): void {
  c.TF_GraphSetTensorShape(graph, output, shape.map(BigInt), shape.length, status);
  check(c, status, 'shape');
}
