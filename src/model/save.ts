import type {FloatDtype} from '../format/dtype.js';
import {writeModelFolder} from '../format/model-folder.js';
import {ModelError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import {transposed} from '../util/transpose.js';
import type {Architecture} from './architecture.js';
import {architectureToConfig, withDtype} from './config.js';
import type {ConfigRecord} from './family/definition.js';
import {FAMILIES} from './family/registry.js';
import {type DiskTensor, diskTensors} from './names.js';
import {leavesOf, type ParameterSpec, parameterSpecs, type Role} from './parameters.js';

/** What goes into a saved model. */
export interface SaveOptions {
  readonly architecture: Architecture;
  /** Config the model came from; keys that the architecture does not set are kept. */
  readonly config?: ConfigRecord;
  /** Gives a parameter, float32 in our layout. Called once for each, in the order of `leavesOf`. */
  readonly read: (spec: ParameterSpec) => Promise<Float32Array> | Float32Array;
  readonly dtype: FloatDtype;
  /** Folder whose tokenizer files are copied. */
  readonly tokenizerFrom?: string;
  /** Folder whose record of origin is copied, if it has one, and says from then on that weights were trained. */
  readonly originFrom?: string;
  readonly extraFiles?: Readonly<Record<string, string>>;
}

/**
 * Writes a model as a Hugging Face folder that is either whole or absent; one parameter is in memory at a time.
 *
 * The inverse of `loadParameters`. Routers and their biases are float32 whatever the dtype: see {@link storedDtype}.
 * @throws EnvironmentError if something stands at `path` or the disk is full; ModelError if `read` gives a wrong size.
 */
export async function saveModel(path: string, options: SaveOptions): Promise<void> {
  const {architecture, config, read, dtype, tokenizerFrom, originFrom, extraFiles} = options;
  const {names} = FAMILIES[architecture.family];
  const parts = leavesOf(parameterSpecs(architecture)).flatMap((spec) =>
    diskTensors(spec, names).map((tensor) => ({spec, tensor})),
  );
  const byName = new Map(parts.map((part) => [part.tensor.name, part]));
  const leaf = keepLast(read);
  await writeModelFolder(path, {
    config: withDtype(architectureToConfig(architecture, config), dtype),
    entries: parts.map(({spec, tensor: {name, shape}}) => ({name, shape, dtype: storedDtype(spec.role, dtype)})),
    read: async (name) => {
      const part = byName.get(name);
      if (!part) throw new Error(`nobody asked for tensor ${name}`);
      return onDisk(await leaf(part.spec), part.tensor);
    },
    ...(tokenizerFrom !== undefined && {copyFrom: tokenizerFrom}),
    ...(originFrom !== undefined && {originFrom}),
    ...(extraFiles && {extraFiles}),
  });
}

/**
 * The dtype a parameter is stored in: a router decides by differences that bfloat16 rounds away, and is small, so it
 * stays float32 with its bias and scale; everything else takes the dtype of the model.
 */
function storedDtype(role: Role, dtype: FloatDtype): FloatDtype {
  return role === 'router' || role === 'bias' || role === 'scale' ? 'F32' : dtype;
}

/** Reads a leaf once for all the tensors that it is stored as. */
function keepLast(read: SaveOptions['read']): (spec: ParameterSpec) => Promise<Float32Array> {
  let last: {readonly path: string; readonly values: Float32Array} | null = null;
  return async (spec) => {
    if (last?.path !== spec.path) {
      last = null; // let go before the next is made
      last = {path: spec.path, values: checkSize(spec, await read(spec))};
    }
    return last.values;
  };
}

function checkSize({path, shape}: ParameterSpec, values: Float32Array): Float32Array {
  const size = numElements(shape);
  if (values.length === size) return values;
  throw new ModelError(`Parameter ${path} needs ${size} numbers, it was given ${values.length}.`);
}

function onDisk(values: Float32Array, {shape, isTransposed, begin, end}: DiskTensor): Float32Array {
  const part = values.subarray(begin, end);
  if (!isTransposed) return part;
  const [columns = 1, rows = 1] = shape;
  return transposed(part, rows, columns);
}
