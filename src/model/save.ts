import type {FloatDtype} from '../format/dtype.js';
import {writeModelFolder} from '../format/model-folder.js';
import type {TensorSpec} from '../format/safetensors-header.js';
import {ModelError} from '../util/errors.js';
import {numElements, rowLength} from '../util/shape.js';
import {transpose} from '../util/transpose.js';
import type {Architecture} from './architecture.js';
import {architectureToConfig, withDtype} from './config.js';
import type {ConfigRecord} from './family/definition.js';
import {FAMILIES} from './family/registry.js';
import {type DiskTensor, diskTensors, onesTensors} from './names.js';
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
 * Writes a model as a Hugging Face folder that is either whole or absent; one parameter is in memory at a time, and the
 * tensor that it is a part of.
 *
 * The inverse of `loadParameters`. Routers and their biases are float32 whatever the dtype: see {@link storedDtype}.
 * @throws EnvironmentError if something stands at `path` or the disk is full; ModelError if `read` gives a wrong size.
 */
export async function saveModel(path: string, options: SaveOptions): Promise<void> {
  const {architecture, config, read, dtype, tokenizerFrom, originFrom, extraFiles} = options;
  const byName = partsByName(architecture);
  const ones = onesTensors(FAMILIES[architecture.family], architecture);
  const leaf = keepLast(read);
  await writeModelFolder(path, {
    config: withDtype(architectureToConfig(architecture, config), dtype),
    entries: [
      ...[...byName.values()].flatMap(([first]) => (first ? [entryOf(first, dtype)] : [])),
      ...ones.map((tensor) => ({...tensor, dtype: storedDtype('norm', dtype)})),
    ],
    read: async (name) => {
      const parts = byName.get(name);
      return parts ? joined(parts, leaf) : new Float32Array(architecture.width).fill(1);
    },
    ...(tokenizerFrom !== undefined && {copyFrom: tokenizerFrom}),
    ...(originFrom !== undefined && {originFrom}),
    ...(extraFiles && {extraFiles}),
  });
}

/** A parameter, or one expert of a stacked one, and where it stands. */
interface Part {
  readonly spec: ParameterSpec;
  readonly tensor: DiskTensor;
}

/** The parts of every tensor; tensors, and the parts of each, in the order of `leavesOf`. */
function partsByName(architecture: Architecture): Map<string, Part[]> {
  const {names} = FAMILIES[architecture.family];
  const byName = new Map<string, Part[]>();
  for (const spec of leavesOf(parameterSpecs(architecture))) {
    for (const tensor of diskTensors(spec, names)) {
      const parts = byName.get(tensor.name) ?? [];
      parts.push({spec, tensor});
      byName.set(tensor.name, parts);
    }
  }
  return byName;
}

function entryOf({spec, tensor: {name, shape}}: Part, dtype: FloatDtype): TensorSpec {
  return {name, shape, dtype: storedDtype(spec.role, dtype)};
}

/**
 * The dtype a parameter is stored in: a router decides by differences that bfloat16 rounds away, and is small, so it
 * stays float32 with its bias and scale; everything else takes the dtype of the model.
 */
export function storedDtype(role: Role, dtype: FloatDtype): FloatDtype {
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

/** A tensor out of its parts; the part itself if it is all of it, and on disk as in memory. */
async function joined(parts: readonly Part[], leaf: SaveOptions['read']): Promise<Float32Array> {
  const [first, ...others] = parts;
  if (!first) throw new Error('nobody asked for this tensor');
  const {begin, end, isTransposed, shape} = first.tensor;
  if (others.length === 0 && !isTransposed) return (await leaf(first.spec)).subarray(begin, end);
  const whole = new Float32Array(numElements(shape));
  for (const {spec, tensor} of parts) place(await leaf(spec), tensor, whole);
  return whole;
}

/** Puts what a tensor holds of a parameter where it stands in it. */
function place(values: Float32Array, {shape, offset, isTransposed, begin, end}: DiskTensor, whole: Float32Array): void {
  const part = values.subarray(begin, end);
  const columns = rowLength(shape);
  if (isTransposed) transpose(part, columns, part.length / columns, whole.subarray(offset, offset + part.length));
  else whole.set(part, offset);
}
