import {setImmediate} from 'node:timers/promises';
import {dtypeCode} from './native/dtype.js';
import {withTrimming} from './native/malloc.js';
import {dropDamaged} from './native/program-cache.js';
import {type Precision, withPrecision} from './precision.js';
import {getEngine} from './state.js';
import {flattenTree, rebuildTree, type TensorTree} from './tensor-tree.js';
import type {TensorFlowBackend} from './tensorflow/backend.js';
import type {Metadata} from './tensorflow/binding.js';
import {
  type CompiledFunction,
  callFunction,
  isTensorFlowError,
  lineOfFailure,
  traceFunction,
} from './tensorflow/compiled-function.js';
import * as tf from './tfjs.js';

/** How a function is compiled. */
export interface CompileOptions {
  /** Name in error messages and profiles. */
  readonly name?: string;
  /** Rounding of matmul inputs; default float32. */
  readonly precision?: Precision;
}

/** A function that is traced once for every combination of input shapes and then runs as one operation. */
export interface Compiled<Inputs extends readonly tf.Tensor[], Output extends TensorTree> {
  /** Runs it; the caller disposes the result. The event loop stays free meanwhile. */
  (...inputs: Inputs): Promise<Output>;
  /** How many combinations of shapes were compiled so far (0 on the wasm engine, which only runs). */
  numFunctions(): number;
  /** Nodes of all compiled graphs together. */
  numNodes(): number;
  dispose(): void;
}

/**
 * Compiles a pure function of tensors: on TensorFlow it is traced and compiled by XLA, on wasm it runs in a tidy.
 *
 * Variables it reads or assigns are captured and updated in place; reading a value inside is an error.
 */
export function compile<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  fn: (...inputs: Inputs) => Output,
  {name = 'compiled', precision = 'float32'}: CompileOptions = {},
): Compiled<Inputs, Output> {
  const engine = getEngine();
  const body = (...inputs: Inputs): Output => withPrecision(precision, () => fn(...inputs));
  return engine.kind === 'tensorflow' ? compileNative(engine.backend, body, name) : runTidy(body);
}

interface Entry<Output> {
  readonly fn: CompiledFunction;
  readonly structure: Output;
}

function compileNative<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  backend: TensorFlowBackend,
  body: (...inputs: Inputs) => Output,
  name: string,
): Compiled<Inputs, Output> {
  const entries = new Map<string, Entry<Output>>();
  const run = async (...inputs: Inputs): Promise<Output> => {
    const key = inputs.map(({shape, dtype}) => `${dtype}[${shape.join()}]`).join();
    const known = entries.get(key);
    const {entry, metadata} = known
      ? {entry: known, metadata: await callFunction(backend.binding, known.fn, backend.toIds(inputs))}
      : await withTrimming(firstCall(backend, body, name, inputs));
    entries.set(key, entry);
    return rebuildTree(
      entry.structure,
      metadata.map((one) => backend.toTensor(one)),
    );
  };
  return Object.assign(run, {
    numFunctions: () => entries.size,
    numNodes: () => [...entries.values()].reduce((sum, {fn}) => sum + fn.numNodes, 0),
    dispose: () => {
      entries.clear();
    },
  });
}

interface FirstCall<Output> {
  readonly entry: Entry<Output>;
  readonly metadata: Metadata[];
}

/** Traces, compiles and runs a function; if a kept program turns out to be damaged, once more. */
async function firstCall<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  backend: TensorFlowBackend,
  body: (...inputs: Inputs) => Output,
  name: string,
  inputs: Inputs,
): Promise<FirstCall<Output>> {
  const {binding, toIds} = backend;
  const call = async (as: string): Promise<FirstCall<Output>> => {
    const entry = traceEntry(backend, body, as, inputs);
    return {entry, metadata: await callFunction(binding, entry.fn, toIds(inputs))};
  };
  try {
    return await call(name);
  } catch (error) {
    const isDamaged = dropDamaged(binding.runtime.programs, error instanceof Error ? error.message : '');
    if (!isDamaged) explain(error, backend, body, inputs);
    return call(`${name}_again`); // under its own name TensorFlow would only say again what it said
  }
}

function traceEntry<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  backend: TensorFlowBackend,
  body: (...inputs: Inputs) => Output,
  name: string,
  inputs: Inputs,
): Entry<Output> {
  let structure: Output | null = null;
  const fn = traceFunction(backend.binding, name, signaturesOf(inputs), (ids) =>
    bodyOnIds(backend, body, inputs, ids, (output) => {
      structure = output;
    }),
  );
  if (!structure) throw new Error(`${name} returned nothing`);
  return {fn, structure};
}

function signaturesOf(inputs: readonly tf.Tensor[]) {
  return inputs.map(({shape, dtype}) => ({shape, dtype: dtypeCode(dtype)}));
}

/** Runs the body on traced arguments and returns the ids of its results; every tensor of the trace is let go. */
function bodyOnIds<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  {toIds, toTensor}: TensorFlowBackend,
  body: (...inputs: Inputs) => Output,
  inputs: Inputs,
  ids: readonly number[],
  onOutput: (output: Output) => void,
): number[] {
  let results: number[] = [];
  tf.tidy(() => {
    const traced = inputs.map(({shape, dtype}, i) => toTensor({id: ids[i] ?? 0, shape, dtype: dtypeCode(dtype)}));
    const output = body(...(traced as readonly tf.Tensor[] as Inputs));
    results = toIds(flattenTree(output));
    onOutput(output);
  });
  return results;
}

/** Adds the caller's line to what XLA says about an operation it cannot compile. */
function explain<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  error: unknown,
  backend: TensorFlowBackend,
  body: (...inputs: Inputs) => Output,
  inputs: Inputs,
): never {
  if (!isTensorFlowError(error)) throw error;
  const line = lineOfFailure(backend.binding, error.message, signaturesOf(inputs), (ids) =>
    bodyOnIds(backend, body, inputs, ids, () => undefined),
  );
  if (line) error.message = `${error.message} (the operation was made at ${line})`;
  throw error;
}

function runTidy<Inputs extends readonly tf.Tensor[], Output extends TensorTree>(
  body: (...inputs: Inputs) => Output,
): Compiled<Inputs, Output> {
  const run = async (...inputs: Inputs): Promise<Output> => {
    await setImmediate(); // give timers and signals their turn between two long synchronous steps
    let output: Output | null = null;
    tf.tidy(() => {
      const made = body(...inputs);
      // Copies: an input or a captured tensor among the results must outlive the caller's disposal of them.
      const owned = flattenTree(made).map((tensor) => tensor.clone());
      output = rebuildTree(made, owned);
      return owned;
    });
    if (!output) throw new Error('the function returned nothing');
    return output;
  };
  return Object.assign(run, {numFunctions: () => 0, numNodes: () => 0, dispose: () => undefined});
}
