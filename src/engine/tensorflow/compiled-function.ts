import type {Pointer} from '../native/c-api.js';
import {check, type Runtime, TensorFlowError} from '../native/runtime.js';
import {boolAttr, setEagerAttribute} from './attributes.js';
import type {Binding, Metadata} from './binding.js';
import {userLine} from '../user-line.js';
import {addNode, addPlaceholder, finishTrace, type GraphValue, startTrace, type Trace} from './trace.js';

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
  readonly captures: readonly Capture[];
}

/** An eager tensor inside a compiled function. */
interface Capture {
  readonly id: number;
  /** For an error message, once it is gone. */
  readonly what: string;
}

let numFunctions = 0;

/** Traces `body` once with arguments of the given signatures and registers the function. */
export function traceFunction(
  binding: Binding,
  name: string,
  signatures: readonly Signature[],
  body: (inputs: readonly number[]) => readonly number[],
): CompiledFunction {
  const {trace, inputs, outputs} = traceBody(binding, signatures, body, {recordLines: false});
  const unique = `${name}_${numFunctions++}`;
  try {
    finishTrace(binding.runtime, trace, unique, inputs, outputs);
  } finally {
    binding.runtime.c.TF_DeleteGraph(trace.graph);
  }
  return {name: unique, numNodes: trace.nodes, numOutputs: outputs.length, captures: capturesOf(binding, trace)};
}

function capturesOf({names}: Binding, {captures}: Trace): Capture[] {
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
  body: (inputs: readonly number[]) => readonly number[],
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
  {xla}: {readonly xla: boolean},
): Promise<Metadata[]> {
  if (binding.trace) throw nestedCall();
  const {runtime} = binding;
  const {c, context} = runtime;
  const status = c.TF_NewStatus();
  const op = c.TFE_NewOp(context, fn.name, status);
  try {
    check(c, status, fn.name);
    const given = inputs.map((id) => ({id, what: 'an input'}));
    for (const input of [...given, ...fn.captures]) addInput(binding, op, input, fn, status);
    if (xla) setEagerAttribute(c, op, boolAttr('_XlaMustCompile', true), status);
    if (runtime.accelerator) c.TFE_OpSetDevice(op, runtime.accelerator, status);
    check(c, status, fn.name);
    const outputs = await execute(runtime, op, fn, status);
    return outputs.map((handle) => binding.register(handle));
  } finally {
    c.TFE_DeleteOp(op);
    c.TF_DeleteStatus(status);
  }
}

/** Removes the function from TensorFlow. */
export function removeFunction({c, context, status}: Runtime, {name}: CompiledFunction): void {
  c.TFE_ContextRemoveFunction(context, name, status);
  check(c, status, `remove ${name}`);
}

function traceBody(
  binding: Binding,
  signatures: readonly Signature[],
  body: (inputs: readonly number[]) => readonly number[],
  options: {readonly recordLines: boolean},
): {trace: Trace; inputs: GraphValue[]; outputs: GraphValue[]} {
  const {runtime} = binding;
  if (binding.trace) throw nestedCall();
  const trace = startTrace(runtime, options);
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
    binding.trace = null;
    binding.dropGraphValues();
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

function addInput(binding: Binding, op: Pointer, {id, what}: Capture, fn: CompiledFunction, status: Pointer): void {
  const {c} = binding.runtime;
  const handle = binding.handleOf(id);
  if (!handle) {
    throw new Error(`${fn.name} uses ${what} that was disposed after the function was compiled.`);
  }
  c.TFE_OpAddInput(op, handle, status);
  check(c, status, fn.name);
}

async function execute({c}: Runtime, op: Pointer, fn: CompiledFunction, status: Pointer): Promise<Pointer[]> {
  const outputs = new Array<Pointer | null>(Math.max(fn.numOutputs, 1)).fill(null);
  const count: [number] = [fn.numOutputs];
  await new Promise<void>((resolve, reject) => {
    c.TFE_Execute.async(op, outputs, count, status, (error) => (error ? reject(error) : resolve()));
  });
  check(c, status, fn.name);
  return outputs.slice(0, count[0]).filter((handle) => handle !== null);
}

/** Whether an error came from TensorFlow while compiling or running a function. */
export function isTensorFlowError(error: unknown): error is TensorFlowError {
  return error instanceof TensorFlowError;
}
