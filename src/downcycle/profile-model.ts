// Watches a dense model at work, layer by layer: which FFN neurons react to which text (ExpertWeaver, section 3.1; CMoE).

import type {DataOptions} from '../data/options.js';
import {documentIds} from '../data/pack.js';
import {closeShards, ensureShards} from '../data/shards.js';
import {readTaskDocuments} from '../data/task.js';
import * as tf from '../engine/tfjs.js';
import {hiddenTensor, startWalk, type Walk} from '../model/walk.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {ConfigError} from '../util/errors.js';
import {joinFloats} from '../util/join.js';
import {type Calibration, readCalibration} from './calibration.js';
import {requireFiniteWeights} from './finite-weights.js';
import {type DenseSource, modelRecord, openDense} from './model-source.js';
import {neuronGradients} from './neuron-gradients.js';
import {compileSums, predictedActivity} from './predicted-activity.js';
import type {Profile, ProfileMetadata} from './profile-file.js';
import type {ProfileOptions} from './profile-options.js';
import {keepPredicted, readProgress, saveProgress} from './profile-progress.js';
import {addTo, type LayerProfile} from './statistics.js';
import {readTaskCalibration} from './task-calibration.js';
import {compileWatch, type Watch, type Watched} from './watch.js';

/** What is being done, and how much of it is done. */
export type ProfileProgress = (what: string, done: number, total: number) => void;

/** What is profiled, and on what. The engine must have been started. */
export interface ProfileModelOptions {
  /** Folder of the dense model. */
  readonly model: string;
  readonly data: DataOptions;
  readonly profile: ProfileOptions;
  /** Where packed shards are kept. */
  readonly shards: string;
  /**
   * File that keeps finished layers, so that a profile that was stopped goes on; what is foreseen of neurons is read from
   * beside it. To be removed once the profile is written.
   */
  readonly partial: string;
  /** Where the config says how long a sample or a row is, for messages. */
  readonly where?: string;
}

/**
 * Runs calibration samples of every task through a dense model and keeps what each FFN neuron did.
 *
 * In memory are the hidden states of the samples and the weights of one layer; with `gradients` the head, too.
 * @throws ModelError if the model is a mixture already or a number is not finite; ConfigError if a sample is longer than
 * a packed row or there are to be more markers than neurons; DataError if a task has too little text.
 */
export async function profileModel(options: ProfileModelOptions, onProgress?: ProfileProgress): Promise<Profile> {
  const {profile, partial, where = 'profile'} = options;
  const source = await openDense(options.model);
  try {
    if (profile.gradients && profile.tokensPerSample < 2) {
      throw new ConfigError(
        `${where}: profile.tokensPerSample (1) leaves no token to predict, which gradients ask for.`,
        {
          hint: 'Set profile.tokensPerSample to 2 or more.',
        },
      );
    }
    if (profile.markers.count > source.numNeurons) {
      throw new ConfigError(
        `${where}: profile.markers.count (${profile.markers.count}) is more than the ${source.numNeurons} neurons of an FFN.`,
      );
    }
    const calibration = await calibrationOf(options);
    await requireFiniteWeights(source.folder.tensors, source.architecture);
    return await profileText(source, calibration, {profile, partial}, onProgress);
  } finally {
    await source.folder.close();
  }
}

/** Whether a profile is of the model and the text as they are now; both may have changed under their paths. */
export async function isProfileOf(
  {metadata}: Profile,
  options: Omit<ProfileModelOptions, 'partial'>,
): Promise<boolean> {
  const source = await openDense(options.model);
  await source.folder.close();
  const {hash} = await calibrationOf(options);
  return metadata.tokenHash === hash && metadata.model.fingerprint === source.fingerprint;
}

/** How a text is profiled: {@link ProfileModelOptions}. */
export type ProfileTextOptions = Pick<ProfileModelOptions, 'profile' | 'partial'>;

/** Profiles an open model on a calibration text; {@link profileModel} finds both by a config. */
export async function profileText(
  source: DenseSource,
  calibration: Calibration,
  {profile, partial}: ProfileTextOptions,
  onProgress?: ProfileProgress,
): Promise<Profile> {
  const metadata = metadataOf(source, calibration, profile);
  const layers = await watchLayers(source, calibration, {metadata, partial}, onProgress);
  if (!profile.gradients) return {layers, metadata};
  const gradients = await neuronGradients(source, calibration, layers, onProgress);
  return {layers: layers.map((layer, l) => ({...layer, gradients: gradients[l] ?? null})), metadata};
}

/** The calibration text of a config. @throws as {@link profileModel} does. */
export async function calibrationOf({
  model,
  data,
  profile,
  shards,
  where = 'profile',
}: Omit<ProfileModelOptions, 'partial'>): Promise<Calibration> {
  const tokenizer = await loadTokenizer(model);
  if (profile.task !== 'source') {
    const documents = readTaskDocuments(data.sources, profile.task.field, data.validation.share);
    return readTaskCalibration(documents, (text) => documentIds(tokenizer, text, data.special), profile);
  }
  if (profile.tokensPerSample > data.sequenceLength) {
    throw new ConfigError(
      `${where}: profile.tokensPerSample (${profile.tokensPerSample}) is more than data.sequenceLength (${data.sequenceLength}).`,
      {
        hint: `A sample is the beginning of a packed row: set profile.tokensPerSample to ${data.sequenceLength} or less, or raise data.sequenceLength.`,
      },
    );
  }
  const sources = await ensureShards(data, tokenizer, shards);
  try {
    return await readCalibration(sources, profile);
  } finally {
    await closeShards(sources);
  }
}

interface Watching {
  readonly metadata: ProfileMetadata;
  readonly partial: string;
}

/** Seconds between two notes of how far a profile is: a layer of a small model is watched sooner than written. */
const NOTE_SECONDS = 20;

async function watchLayers(
  {folder, architecture}: DenseSource,
  calibration: Calibration,
  {metadata, partial}: Watching,
  onProgress?: ProfileProgress,
): Promise<LayerProfile[]> {
  const walk = await startWalk(folder, architecture, calibration);
  const watch = compileWatch(walk, metadata.options);
  const sums = metadata.options.predictors ? compileSums(walk) : null;
  try {
    const layers = await resume(walk, metadata, partial);
    let noted = performance.now();
    for (let layer = layers.length; layer < architecture.ffn.length; layer++) {
      await walk.load(layer);
      const profile_FP = sums && (await predictedActivity(walk, sums, metadata.model.ffnWidth));
      const predicted = profile_FP && (await keepPredicted(partial, layer, profile_FP, metadata));
      layers.push({...(await watchLayer(walk, watch, calibration, metadata)), predicted});
      onProgress?.('watching layers', layer + 1, architecture.ffn.length);
      if (performance.now() - noted < NOTE_SECONDS * 1000) continue;
      await saveProgress(partial, {layers, metadata, hidden: walk.batches});
      noted = performance.now();
    }
    if (metadata.options.gradients) await saveProgress(partial, {layers, metadata, hidden: walk.batches});
    return layers;
  } finally {
    walk.dispose();
  }
}

/** Layers of a profile that was stopped; the walk is taken to where they end. */
async function resume(walk: Walk, metadata: ProfileMetadata, partial: string): Promise<LayerProfile[]> {
  const saved = await readProgress(partial, metadata);
  const isFit = walk.batches.every((batch, i) => saved?.hidden[i]?.length === batch.length);
  if (!saved || !isFit) return [];
  for (const [i, batch] of walk.batches.entries()) batch.set(saved.hidden[i] ?? []);
  return [...saved.layers];
}

async function watchLayer(
  walk: Walk,
  watch: Watch,
  {taskOfSample_J, tokens}: Calibration,
  {model: {ffnWidth: numNeurons}, options}: ProfileMetadata,
): Promise<LayerProfile> {
  const parts: Numbers[] = [];
  for (const batch of walk.batches) parts.push(await watchBatch(walk, watch, batch));
  const rows = (key: BySample): Float32Array => joinFloats(parts.map((part) => part[key]));
  const means = (key: OverTokens): Float32Array => meanOf(parts.map((part) => part[key]));
  const profile: LayerProfile = {
    numNeurons,
    taskOfSample_J,
    gateMean_JF: rows('gateMean_BF'),
    gateMagnitude_F: means('gateMagnitude_F'),
    hMean_JF: rows('hMean_BF'),
    hSquare_JF: rows('hSquare_BF'),
    hMagnitude_F: means('hMagnitude_F'),
    marker_NM: Int32Array.from(joinFloats(parts.map((part) => part.marker_TM))),
    numMarkers: options.markers.count,
    downNorm_F: parts[0]?.downNorm_F ?? new Float32Array(0),
    predicted: null,
    gradients: null,
  };
  if (profile.marker_NM.length % tokens.length === 0) return profile;
  throw new Error(`${profile.marker_NM.length} markers of ${tokens.length} tokens`);
}

type BySample = 'gateMean_BF' | 'hMean_BF' | 'hSquare_BF';
type OverTokens = 'gateMagnitude_F' | 'hMagnitude_F';
type Numbers = Readonly<Record<Exclude<keyof Watched, 'next_TD'>, Float32Array>>;

/** What neurons do on a batch, which becomes what comes after the layer. */
async function watchBatch(walk: Walk, watch: Watch, batch: Float32Array): Promise<Numbers> {
  const x_TD = hiddenTensor(walk, batch);
  const {next_TD, ...watched} = await watch(x_TD);
  try {
    const entries = Object.entries(watched).map(
      async ([name, tensor]) => [name, Float32Array.from(await tensor.data())] as const,
    );
    batch.set(await next_TD.data());
    return Object.fromEntries(await Promise.all(entries)) as Numbers;
  } finally {
    tf.dispose([x_TD, next_TD, ...Object.values(watched)]);
  }
}

/** Mean of the batches' means; all batches are equally large. */
function meanOf(parts: readonly Float32Array[]): Float32Array {
  const sum_F = new Float64Array(parts[0]?.length ?? 0);
  for (const part of parts) addTo(sum_F, part);
  return Float32Array.from(sum_F, (sum) => sum / parts.length);
}

function metadataOf(source: DenseSource, {tasks, hash}: Calibration, options: ProfileOptions): ProfileMetadata {
  return {tasks: [...tasks], tokenHash: hash, options, model: modelRecord(source)};
}
