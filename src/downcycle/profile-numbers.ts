// The tensors of a profile's file. Shapes: J samples, N tokens, M markers a token, F neurons.
import type {SafetensorsFile} from '../format/safetensors.js';
import {renderHeader, type TensorSpec} from '../format/safetensors-header.js';
import {writeFileAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import type {LayerProfile} from './statistics.js';

/** A tensor and its numbers. */
export interface NamedNumbers {
  readonly spec: TensorSpec;
  readonly data: Numbers;
}

/** How a statistic stands in the file. */
interface Statistic {
  readonly key: string;
  /** Its tensor is called `layers.{l}.{name}`. */
  readonly name: string;
  readonly dtype: 'F32' | 'I32';
  /** Its axes: one of neurons, or rows of any number; a row is as long as there are neurons or markers, or anything. */
  readonly axes: 'F' | '*F' | '*M' | 'F*';
}

const STATISTICS: readonly Statistic[] = [
  {key: 'gateMean_JF', name: 'gate_mean', dtype: 'F32', axes: '*F'},
  {key: 'gateMagnitude_F', name: 'gate_magnitude', dtype: 'F32', axes: 'F'},
  {key: 'hMean_JF', name: 'h_mean', dtype: 'F32', axes: '*F'},
  {key: 'hSquare_JF', name: 'h_square', dtype: 'F32', axes: '*F'},
  {key: 'hMagnitude_F', name: 'h_magnitude', dtype: 'F32', axes: 'F'},
  {key: 'marker_NM', name: 'markers', dtype: 'I32', axes: '*M'},
  {key: 'downNorm_F', name: 'down_norm', dtype: 'F32', axes: 'F'},
];
/** Those that are there only if they were asked for. */
const GROUPS = {
  predicted: [{key: 'profile_FP', name: 'predicted_profile', dtype: 'F32', axes: 'F*'}],
  gradients: [
    {key: 'importance_F', name: 'gradient_importance', dtype: 'F32', axes: 'F'},
    {key: 'sensitivity_F', name: 'gradient_sensitivity', dtype: 'F32', axes: 'F'},
  ],
} as const satisfies Readonly<Record<string, readonly Statistic[]>>;
type Group = keyof typeof GROUPS;
const TASKS = 'task_of_sample';

type Numbers = Float32Array | Int32Array;
/** Statistics by their keys. */
type Named = Readonly<Record<string, Numbers>>;

/** Sizes that the shapes are made of. */
interface Sizes {
  readonly numNeurons: number;
  readonly numMarkers: number;
}

/** The tensors of some layers: `task_of_sample` I32 [J] and those of each layer. */
export function profileNumbers(layers: readonly LayerProfile[], numMarkers: number): NamedNumbers[] {
  const tasks = Int32Array.from(layers[0]?.taskOfSample_J ?? []);
  return [
    {spec: {name: TASKS, dtype: 'I32', shape: [tasks.length]}, data: tasks},
    ...layers.flatMap((profile, layer) => {
      const sizes = {numNeurons: profile.numNeurons, numMarkers};
      const parts = [
        {list: STATISTICS, values: profile as unknown as Named},
        ...groups(profile).map((group) => ({list: GROUPS[group], values: profile[group] as unknown as Named})),
      ];
      return parts.flatMap(({list, values}) =>
        list.map(({key, name, dtype, axes}: Statistic) => {
          const data = values[key] as Numbers;
          return {spec: {name: `layers.${layer}.${name}`, dtype, shape: shapeOf(axes, data.length, sizes)}, data};
        }),
      );
    }),
  ];
}

/** Writes tensors into one safetensors file, whole or not at all; it replaces what stands there. */
export async function writeNumbers(
  path: string,
  parts: readonly NamedNumbers[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const {bytes} = renderHeader(
    parts.map(({spec}) => spec),
    metadata,
  );
  const data = parts.map(({data: {buffer, byteOffset, byteLength}}) => new Uint8Array(buffer, byteOffset, byteLength));
  await writeFileAtomic(path, [bytes, ...data]);
}

/** What {@link readLayer} needs to know of the file it reads from. */
export interface LayerLayout extends Sizes {
  /** [J] */
  readonly taskOfSample_J: Int32Array;
  /** Which of the groups that must be asked for are there. */
  readonly groups: readonly Group[];
}

/** Task of each sample, int32 [J]. @throws DataError if one is not among `numTasks`. */
export async function readTasks(file: SafetensorsFile, numTasks: number): Promise<Int32Array> {
  const ids = await readNumbers(file, TASKS, 'I32', (size) => [size]);
  const stray = ids.find((id) => id < 0 || id >= numTasks);
  if (stray === undefined) return Int32Array.from(ids);
  throw new DataError(`${file.path}: a sample is of task ${stray}, there are ${numTasks} tasks.`);
}

/** One layer of a profile. @throws DataError naming a tensor of another dtype or shape. */
export async function readLayer(file: SafetensorsFile, layer: number, layout: LayerLayout): Promise<LayerProfile> {
  const read = async (list: readonly Statistic[]): Promise<Named> => {
    const found: Record<string, Numbers> = {};
    for (const {key, name, dtype, axes} of list) {
      found[key] = await readNumbers(file, `layers.${layer}.${name}`, dtype, (size) => shapeOf(axes, size, layout));
    }
    return found;
  };
  const {numNeurons, taskOfSample_J} = layout;
  const asked = {predicted: null, gradients: null} as Record<Group, Named | null>;
  for (const group of layout.groups) asked[group] = await read(GROUPS[group]);
  return {
    ...(await read(STATISTICS)),
    ...asked,
    numNeurons,
    taskOfSample_J,
    numMarkers: layout.numMarkers,
  } as unknown as LayerProfile;
}

/** The groups that a layer has of those that must be asked for. */
function groups(profile: LayerProfile): Group[] {
  return (Object.keys(GROUPS) as Group[]).filter((group) => profile[group] !== null);
}

/** The shape that `size` numbers of a statistic have; not whole if they do not fit. */
function shapeOf(axes: Statistic['axes'], size: number, {numNeurons, numMarkers}: Sizes): number[] {
  switch (axes) {
    case 'F':
      return [numNeurons];
    case '*F':
      return [size / numNeurons, numNeurons];
    case '*M':
      return [size / numMarkers, numMarkers];
    case 'F*':
      return [numNeurons, size / numNeurons];
  }
}

async function readNumbers(
  file: SafetensorsFile,
  name: string,
  dtype: 'F32' | 'I32',
  shapeFor: (size: number) => number[],
): Promise<Numbers> {
  const info = file.info(name);
  const expected = shapeFor(numElements(info.shape));
  if (info.dtype !== dtype || info.shape.join() !== expected.join()) {
    throw new DataError(
      `${file.path}: tensor "${name}" is ${info.dtype} [${info.shape.join(', ')}], a profile has ${dtype} [${expected.join(', ')}].`,
    );
  }
  const {buffer} = await file.readBytes(name);
  return dtype === 'F32' ? new Float32Array(buffer) : new Int32Array(buffer);
}
