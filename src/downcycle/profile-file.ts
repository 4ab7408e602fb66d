// What profiling a model leaves on disk: one safetensors file, so that Python can read it too.
import {z} from 'zod';
import {openSafetensors, type SafetensorsFile} from '../format/safetensors.js';
import {renderHeader, type TensorSpec} from '../format/safetensors-header.js';
import {refuseExisting, writeFileAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {profileSchema} from './options.js';
import {checkProfile, type LayerProfile} from './statistics.js';

const metadataSchema = z.strictObject({
  /** Name of each task, by its id. */
  tasks: z.array(z.string()).min(1),
  /** SHA-256 of the calibration tokens, in hex. */
  tokenHash: z.string(),
  options: profileSchema,
  model: z.strictObject({fingerprint: z.string(), layers: z.int().positive(), ffnWidth: z.int().positive()}),
});

/** What was profiled: on which text, how, and which model. */
export type ProfileMetadata = z.output<typeof metadataSchema>;

/** What calibration says about every layer of a model. */
export interface Profile {
  readonly layers: readonly LayerProfile[];
  readonly metadata: ProfileMetadata;
}

const FORMAT = 'downcycle-profile-1';
const TASKS = 'task_of_sample';

/**
 * Writes a profile: `layers.{l}.gate_mean` F32 [J, F], `task_of_sample` I32 [J], the rest as JSON in the metadata.
 *
 * @throws EnvironmentError if something stands at `path` or the disk is full.
 * @throws DataError or ModelError if the profile is none: see {@link checkProfile}.
 */
export async function writeProfile(path: string, profile: Profile): Promise<void> {
  await refuseExisting(path);
  checkWhole(profile, path);
  const [first] = profile.layers;
  const tasks = Int32Array.from(first?.taskOfSample_J ?? []);
  const parts = [
    {spec: {name: TASKS, dtype: 'I32', shape: [tasks.length]} satisfies TensorSpec, data: tasks},
    ...profile.layers.map(({gateMean_JF, numNeurons}, layer) => ({
      spec: {name: gateMeanName(layer), dtype: 'F32', shape: [tasks.length, numNeurons]} satisfies TensorSpec,
      data: gateMean_JF,
    })),
  ];
  const metadata = {format: FORMAT, profile: JSON.stringify(profile.metadata)};
  const {bytes} = renderHeader(
    parts.map(({spec}) => spec),
    metadata,
  );
  const data = parts.map(({data: {buffer, byteOffset, byteLength}}) => new Uint8Array(buffer, byteOffset, byteLength));
  await writeFileAtomic(path, Buffer.concat([bytes, ...data]));
}

/**
 * Reads a profile.
 *
 * @throws ModelError if the file is missing or no whole safetensors file; DataError if it is no profile or a damaged one.
 */
export async function readProfile(path: string): Promise<Profile> {
  const file = await openSafetensors(path);
  try {
    const metadata = readMetadata(file);
    const tasks = await readTasks(file, metadata);
    const layers: LayerProfile[] = [];
    for (let layer = 0; layer < metadata.model.layers; layer++)
      layers.push(await readLayer(file, metadata, tasks, layer));
    const profile = {layers, metadata};
    checkWhole(profile, path);
    return profile;
  } finally {
    await file.close();
  }
}

/**
 * Refuses a profile of another model.
 *
 * @throws DataError naming what differs: number of layers, FFN width or fingerprint.
 */
export function requireProfileOf({metadata}: Profile, model: ProfileMetadata['model'], modelPath: string): void {
  const {layers, ffnWidth, fingerprint} = metadata.model;
  const again = {hint: `Profile ${modelPath} again.`};
  if (layers !== model.layers || ffnWidth !== model.ffnWidth) {
    throw new DataError(
      `The profile has ${layers} layers of ${ffnWidth} neurons, ${modelPath} has ${model.layers} of ${model.ffnWidth}.`,
      again,
    );
  }
  if (fingerprint === model.fingerprint) return;
  throw new DataError(
    `The profile was made of another model than ${modelPath}: same shape, other weights (${short(fingerprint)}, not ${short(model.fingerprint)}).`,
    again,
  );
}

function checkWhole({layers, metadata: {model, tasks}}: Profile, path: string): void {
  const odd = layers.findIndex(({numNeurons}) => numNeurons !== model.ffnWidth);
  if (layers.length !== model.layers || odd >= 0) {
    throw new DataError(`${path}: the profile does not hold ${model.layers} layers of ${model.ffnWidth} neurons.`);
  }
  layers.forEach((profile, layer) => {
    checkProfile(profile, layer);
    const numTasks = new Set(Array.from(profile.taskOfSample_J)).size;
    if (numTasks === tasks.length) return;
    throw new DataError(`${path}: layer ${layer} has samples of ${numTasks} tasks, ${tasks.length} are named.`);
  });
}

function readMetadata({path, metadata}: SafetensorsFile): ProfileMetadata {
  if (metadata.format !== FORMAT || metadata.profile === undefined) {
    throw new DataError(
      `${path}: this safetensors file is no profile (format ${metadata.format ?? 'none'}, not ${FORMAT}).`,
      {
        hint: 'Make one with `downcycle profile`.',
      },
    );
  }
  const parsed = metadataSchema.safeParse(parseOrNull(metadata.profile));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new DataError(`${path}: the profile's metadata is damaged: ${issue?.path.join('.')}: ${issue?.message}.`);
}

async function readTasks(file: SafetensorsFile, {tasks}: ProfileMetadata): Promise<Int32Array> {
  expect(file, TASKS, 'I32', 1);
  const ids = new Int32Array((await file.readBytes(TASKS)).buffer);
  const stray = ids.find((id) => id < 0 || id >= tasks.length);
  if (stray === undefined) return ids;
  throw new DataError(`${file.path}: a sample is of task ${stray}, there are ${tasks.length} tasks.`);
}

async function readLayer(
  file: SafetensorsFile,
  {model}: ProfileMetadata,
  taskOfSample_J: Int32Array,
  layer: number,
): Promise<LayerProfile> {
  const name = gateMeanName(layer);
  expect(file, name, 'F32', 2);
  const gateMean_JF = new Float32Array((await file.readBytes(name)).buffer);
  return {gateMean_JF, taskOfSample_J, numNeurons: model.ffnWidth};
}

function expect(file: SafetensorsFile, name: string, dtype: 'F32' | 'I32', rank: number): void {
  const info = file.info(name);
  if (info.dtype === dtype && info.shape.length === rank) return;
  throw new DataError(
    `${file.path}: tensor "${name}" is ${info.dtype} [${info.shape.join(', ')}], a profile has ${dtype} with ${rank} axes.`,
  );
}

function parseOrNull(json: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return null;
  }
}

function gateMeanName(layer: number): string {
  return `layers.${layer}.gate_mean`;
}

function short(hash: string): string {
  return hash.slice(0, 12);
}
