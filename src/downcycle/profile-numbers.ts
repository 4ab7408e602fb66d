// The tensors of a profile's file. Shapes: J samples, N tokens, M markers a token, F neurons.
import {openSafetensors, type SafetensorsFile} from '../format/safetensors.js';
import {renderHeader, type TensorSpec} from '../format/safetensors-header.js';
import {writeFileAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import type {LayerProfile, PredictedActivity} from './statistics.js';

/** A tensor and its numbers. */
export interface NamedNumbers {
  readonly spec: TensorSpec;
  /** A function where they are read when they are written. */
  readonly data: Numbers | (() => Promise<Numbers>);
}

/** How a statistic stands in the file. */
interface Statistic {
  readonly key: string;
  /** Its tensor is called `layers.{l}.{name}`. */
  readonly name: string;
  readonly dtype: 'F32' | 'I32';
  /** Its axes: one of neurons, or rows of any number; a row is as long as there are neurons or markers. */
  readonly axes: 'F' | '*F' | '*M';
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
/** Those that are there only if they were asked for; so is what is foreseen of neurons. */
const GRADIENTS: readonly Statistic[] = [
  {key: 'importance_F', name: 'gradient_importance', dtype: 'F32', axes: 'F'},
  {key: 'sensitivity_F', name: 'gradient_sensitivity', dtype: 'F32', axes: 'F'},
];
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
        ...(profile.gradients ? [{list: GRADIENTS, values: profile.gradients as unknown as Named}] : []),
      ];
      const numbers = parts.flatMap(({list, values}) =>
        list.map(({key, name, dtype, axes}: Statistic): NamedNumbers => {
          const data = values[key] as Numbers;
          return {spec: {name: `layers.${layer}.${name}`, dtype, shape: shapeOf(axes, data.length, sizes)}, data};
        }),
      );
      const {predicted, numNeurons} = profile;
      return predicted
        ? [...numbers, predictedNumbers(layer, predicted.read, [numNeurons, predicted.numColumns])]
        : numbers;
    }),
  ];
}

/** What is foreseen of a layer's neurons, [F, P]. */
export function predictedNumbers(
  layer: number,
  data: NamedNumbers['data'],
  shape: readonly [F: number, P: number],
): NamedNumbers {
  return {spec: {name: predictedName(layer), dtype: 'F32', shape: [...shape]}, data};
}

function predictedName(layer: number): string {
  return `layers.${layer}.predicted_profile`;
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
  await writeFileAtomic(path, fileParts(bytes, parts));
}

async function* fileParts(head: Uint8Array, parts: readonly NamedNumbers[]): AsyncGenerator<Uint8Array> {
  yield head;
  for (const {spec, data} of parts) {
    const numbers = typeof data === 'function' ? await data() : data;
    if (numbers.length !== numElements(spec.shape)) throw new Error(`${spec.name} has ${numbers.length} numbers`);
    yield new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  }
}

/** What {@link readLayer} needs to know of the file it reads from. */
export interface LayerLayout extends Sizes {
  /** [J] */
  readonly taskOfSample_J: Int32Array;
  /** Which of the statistics that must be asked for are there. */
  readonly has: {readonly predicted: boolean; readonly gradients: boolean};
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
  const {numNeurons, taskOfSample_J, has} = layout;
  return {
    ...(await read(STATISTICS)),
    predicted: has.predicted ? predictedIn(file, layer, numNeurons) : null,
    gradients: has.gradients ? await read(GRADIENTS) : null,
    numNeurons,
    taskOfSample_J,
    numMarkers: layout.numMarkers,
  } as unknown as LayerProfile;
}

/** What is foreseen of a layer's neurons, to be read from a file. @throws DataError if it is of another dtype or shape. */
export function predictedIn(file: SafetensorsFile, layer: number, numNeurons: number): PredictedActivity {
  const {path, metadata} = file;
  const name = predictedName(layer);
  const expected = (size: number): number[] => [numNeurons, size / numNeurons];
  requireShape(file, name, 'F32', expected);
  return {
    numColumns: file.info(name).shape[1] ?? 0,
    read: async () => {
      const again = await openSafetensors(path);
      try {
        if (again.metadata.profile !== metadata.profile) {
          throw new DataError(`${path} is another profile than when it was opened.`, {hint: 'Start again.'});
        }
        return (await readNumbers(again, name, 'F32', expected)) as Float32Array;
      } finally {
        await again.close();
      }
    },
  };
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
  }
}

async function readNumbers(
  file: SafetensorsFile,
  name: string,
  dtype: 'F32' | 'I32',
  shapeFor: (size: number) => number[],
): Promise<Numbers> {
  requireShape(file, name, dtype, shapeFor);
  const {buffer} = await file.readBytes(name);
  return dtype === 'F32' ? new Float32Array(buffer) : new Int32Array(buffer);
}

function requireShape(
  file: SafetensorsFile,
  name: string,
  dtype: 'F32' | 'I32',
  shapeFor: (size: number) => number[],
): void {
  const info = file.info(name);
  const expected = shapeFor(numElements(info.shape));
  if (info.dtype === dtype && info.shape.join() === expected.join()) return;
  throw new DataError(
    `${file.path}: tensor "${name}" is ${info.dtype} [${info.shape.join(', ')}], a profile has ${dtype} [${expected.join(', ')}].`,
  );
}
