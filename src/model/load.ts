import {isFloatDtype} from '../format/dtype.js';
import {expectTensor, type ModelFolder} from '../format/model-folder.js';
import type {TensorStore} from '../format/tensor-store.js';
import {ModelError} from '../util/errors.js';
import {listSome} from '../util/list.js';
import {numElements, rowLength} from '../util/shape.js';
import {transpose} from '../util/transpose.js';
import type {Architecture} from './architecture.js';
import type {FamilyDefinition} from './family/definition.js';
import {FAMILIES} from './family/registry.js';
import {type DiskTensor, diskTensors, onesTensors, parametersIn} from './names.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from './parameters.js';

/** Takes one parameter, float32 in our layout; the array is the receiver's to keep. */
export type LeafSink = (spec: ParameterSpec, values: Float32Array) => void | Promise<void>;

/**
 * Reads every parameter of a model, one after the other in the order of `leavesOf`; one is in memory at a time.
 *
 * Linear weights come transposed to [in, out], experts stacked. All shapes are checked before the first is read.
 * @returns one line for each kind of tensor in the files that the architecture has no place for.
 * @throws ModelError naming file and tensor if one is missing, has another shape or is not made of real numbers.
 */
export async function loadParameters(
  {tensors}: Pick<ModelFolder, 'tensors'>,
  architecture: Architecture,
  onLeaf: LeafSink,
): Promise<readonly string[]> {
  const warnings = await checkTensors(tensors, architecture);
  const {names} = FAMILIES[architecture.family];
  for (const spec of leavesOf(parameterSpecs(architecture))) {
    await onLeaf(spec, await readLeaf(tensors, spec, diskTensors(spec, names)));
  }
  return warnings;
}

/**
 * Compares the tensors of a folder with those an architecture asks for, by name and shape; reads no weights but those that must
 * be ones.
 *
 * @returns what is there and not asked for, in words.
 * @throws ModelError naming file and tensors if some are missing, one has another shape, is not made of real numbers, or not of ones.
 */
export async function checkTensors(tensors: TensorStore, architecture: Architecture): Promise<readonly string[]> {
  const family = FAMILIES[architecture.family];
  const parts = leavesOf(parameterSpecs(architecture)).flatMap((spec) => diskTensors(spec, family.names));
  const expected = [...parts, ...onesTensors(family, architecture)];
  requireThere(tensors, expected);
  for (const {name, shape} of expected) {
    const {dtype} = expectTensor(tensors, name, shape);
    if (isFloatDtype(dtype)) continue;
    throw new ModelError(`${tensors.path}: tensor "${name}" is ${dtype}; real numbers are needed.`);
  }
  await requireOnes(tensors, architecture);
  const asked = new Set(expected.map(({name}) => name));
  const extra = tensors.names.filter((name) => !asked.has(name) && !family.isObsolete(name));
  return describeExtra(extra, tensors, family);
}

/** Says how many are missing, and names the first, where several are. @throws ModelError then. */
function requireThere(tensors: TensorStore, expected: readonly {readonly name: string}[]): void {
  const missing = [...new Set(expected.flatMap(({name}) => (tensors.has(name) ? [] : [name])))];
  if (missing.length < 2) return; // of one, its shape is said, too
  throw new ModelError(
    `${tensors.path}: ${missing.length} tensors that ${tensors.asker} asks for are missing: ${listSome(missing)}.`,
    {hint: 'Download the rest of the model, or give it the config.json that it was saved with.'},
  );
}

/** @throws ModelError naming file and tensor if one of those that must be ones is not, or missing. */
export async function requireOnes(tensors: TensorStore, architecture: Architecture): Promise<void> {
  for (const {name} of onesTensors(FAMILIES[architecture.family], architecture)) {
    const values = await tensors.read(name);
    const place = values.findIndex((value) => value !== 1);
    if (place >= 0) throw notOnes(tensors, name, `${values[place]} at place ${place}`);
  }
}

function notOnes(tensors: TensorStore, name: string, found: string): ModelError {
  return new ModelError(
    `${tensors.fileOf(name)}: tensor "${name}" has ${found}; only ones are supported, since layer norms have no weights here.`,
    {
      hint: 'The weight of a norm can be multiplied into the columns of the matrices that read what it gives (Wqkv; router, w1 and v1; lm_head): do so, and store ones.',
    },
  );
}

/** Two lines at most: tensors of the family that this config does not ask for, and tensors nobody knows. */
function describeExtra(
  extra: readonly string[],
  {path, asker}: TensorStore,
  {names, modelType}: FamilyDefinition,
): readonly string[] {
  const isKnown = (name: string): boolean => parametersIn(name, names).length > 0;
  const known = extra.filter(isKnown);
  const unknown = extra.filter((name) => !isKnown(name));
  return [
    ...(known.length > 0 ? [`${path}: ${asker} does not ask for ${list(known)}; ignored.`] : []),
    ...(unknown.length > 0 ? [`${path}: a ${modelType} model has no ${list(unknown)}; ignored.`] : []),
  ];
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(', ');
  return names.length > 3 ? `${shown} and ${names.length - 3} more tensors` : `tensor ${shown}`;
}

/**
 * One parameter, float32 in our layout.
 *
 * @param scratch at least as long as the parameter: where it is read to, unless it is on disk as it is asked for.
 * @throws ModelError if a tensor is missing or not made of real numbers.
 */
export function readParameter(
  {tensors}: Pick<ModelFolder, 'tensors'>,
  architecture: Architecture,
  spec: ParameterSpec,
  scratch?: Float32Array,
): Promise<Float32Array> {
  return readLeaf(tensors, spec, diskTensors(spec, FAMILIES[architecture.family].names), scratch);
}

async function readLeaf(
  tensors: TensorStore,
  {shape}: ParameterSpec,
  parts: readonly DiskTensor[],
  scratch?: Float32Array,
): Promise<Float32Array> {
  const [only] = parts;
  const size = numElements(shape);
  if (parts.length === 1 && only && !only.isTransposed && numElements(only.shape) === size) {
    return tensors.read(only.name);
  }
  const values = scratch?.subarray(0, size) ?? new Float32Array(size);
  for (const part of parts) await readPart(tensors, part, values.subarray(part.begin, part.end));
  return values;
}

/** Numbers that are read at once: a whole matrix would be in memory three times, until somebody collects it. */
const PIECE = 2 ** 18;

async function readPart(
  tensors: TensorStore,
  {name, shape, offset, isTransposed}: DiskTensor,
  target: Float32Array,
): Promise<void> {
  const columns = rowLength(shape);
  const [first, allRows] = [offset / columns, target.length / columns];
  const step = Math.max(1, Math.floor(PIECE / columns));
  for (let firstRow = 0; firstRow < allRows; firstRow += step) {
    const end = Math.min(firstRow + step, allRows);
    const rows = await tensors.readRows(name, first + firstRow, first + end);
    if (isTransposed) transpose(rows, end - firstRow, columns, target, {firstRow, allRows});
    else target.set(rows, firstRow * columns);
  }
}
