// What profiling a model leaves on disk: one safetensors file, so that Python can read it too.
import {z} from 'zod';
import {openSafetensors, type SafetensorsFile} from '../format/safetensors.js';
import {refuseExisting} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {type LayerLayout, predictedIn, profileNumbers, readLayer, readTasks, writeNumbers} from './profile-numbers.js';
import {profileSchema} from './profile-options.js';
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

const FORMAT = 'downcycle-profile-2';

/**
 * Writes a profile: one safetensors file, with the rest as JSON in its metadata.
 *
 * @throws EnvironmentError if something stands at `path` or the disk is full.
 * @throws DataError or ModelError if the profile is none: see {@link checkProfile}.
 */
export async function writeProfile(path: string, {layers, metadata}: Profile): Promise<void> {
  await refuseExisting(path);
  checkWhole({layers, metadata}, path);
  const numbers = profileNumbers(layers, metadata.options.markers.count);
  await writeNumbers(path, numbers, {format: FORMAT, profile: JSON.stringify(metadata)});
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
    const layers = await readLayers(file, metadata, metadata.model.layers);
    const profile = {layers, metadata};
    checkWhole(profile, path);
    return profile;
  } finally {
    await file.close();
  }
}

/** A profile that was just written to `path`, with what is foreseen of neurons read from there. */
export async function readingFrom(path: string, {layers, metadata}: Profile): Promise<Profile> {
  const file = await openSafetensors(path);
  try {
    const moved = layers.map((layer, l) =>
      layer.predicted ? {...layer, predicted: predictedIn(file, l, layer.numNeurons)} : layer,
    );
    return {layers: moved, metadata};
  } finally {
    await file.close();
  }
}

/** The first `count` layers in a file. @throws DataError if a tensor is of another dtype or shape. */
export async function readLayers(
  file: SafetensorsFile,
  {tasks, options, model}: ProfileMetadata,
  count: number,
  has: LayerLayout['has'] = {predicted: options.predictors, gradients: options.gradients},
): Promise<LayerProfile[]> {
  const taskOfSample_J = await readTasks(file, tasks.length);
  const layout = {numNeurons: model.ffnWidth, numMarkers: options.markers.count, taskOfSample_J, has};
  const layers: LayerProfile[] = [];
  for (let layer = 0; layer < count; layer++) layers.push(await readLayer(file, layer, layout));
  return layers;
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

function parseOrNull(json: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return null;
  }
}

function short(hash: string): string {
  return hash.slice(0, 12);
}
