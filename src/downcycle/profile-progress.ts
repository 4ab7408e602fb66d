// What a profile that is being made leaves on disk, so that one that was stopped goes on.
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import {openSafetensors} from '../format/safetensors.js';
import {type ProfileMetadata, readLayers} from './profile-file.js';
import {predictedIn, predictedNumbers, profileNumbers, writeNumbers} from './profile-numbers.js';
import type {LayerProfile, PredictedActivity} from './statistics.js';

/** The first layers of a profile, and the hidden states after them. */
export interface Progress {
  readonly layers: readonly LayerProfile[];
  readonly metadata: ProfileMetadata;
  /** Parts of float32 [N, D], one after another. */
  readonly hidden: readonly Float32Array[];
}

const FORMAT = 'downcycle-profile-progress-3';

/** Keeps how far a profile is, in place of what was kept before. @throws EnvironmentError if the disk is full. */
export async function saveProgress(path: string, {layers, metadata, hidden}: Progress): Promise<void> {
  const head = {format: FORMAT, profile: JSON.stringify(metadata), layers: String(layers.length)};
  const parts = hidden.map((data, i) => ({
    spec: {name: `hidden.${i}`, dtype: 'F32' as const, shape: [data.length]},
    data,
  }));
  const statistics = layers.map((layer) => ({...layer, predicted: null})); // kept already, see keepPredicted
  await writeNumbers(path, [...profileNumbers(statistics, metadata.options.markers.count), ...parts], head);
}

/** Keeps what is foreseen of a layer's neurons, [F, P], in a file beside `path`, where it is read from. */
export async function keepPredicted(
  path: string,
  layer: number,
  profile_FP: Float32Array,
  metadata: ProfileMetadata,
): Promise<PredictedActivity> {
  const {ffnWidth: F} = metadata.model;
  const numbers = predictedNumbers(layer, profile_FP, [F, profile_FP.length / F]);
  const file = predictedFile(path, layer);
  await writeNumbers(file, [numbers], {format: FORMAT, profile: JSON.stringify(metadata)});
  return keptPredicted(path, layer, metadata);
}

/** @throws Error if it was kept for a profile of another model, text or settings. */
async function keptPredicted(path: string, layer: number, metadata: ProfileMetadata): Promise<PredictedActivity> {
  const file = await openSafetensors(predictedFile(path, layer));
  try {
    if (file.metadata.profile !== JSON.stringify(metadata)) throw new Error(`${file.path} is of another profile`);
    return predictedIn(file, layer, metadata.model.ffnWidth);
  } finally {
    await file.close();
  }
}

function predictedFolder(path: string): string {
  return `${path}.predicted`;
}

function predictedFile(path: string, layer: number): string {
  return join(predictedFolder(path), `${layer}.safetensors`);
}

/** How far a profile of the same model, text and settings came; null if none was begun or its file is damaged. */
export async function readProgress(path: string, metadata: ProfileMetadata): Promise<Progress | null> {
  const file = await openSafetensors(path).catch(() => null);
  if (!file) return null;
  try {
    const {format, profile, layers: count} = file.metadata;
    if (format !== FORMAT || profile !== JSON.stringify(metadata)) return null;
    const numLayers = Number(count);
    if (!(Number.isInteger(numLayers) && numLayers > 0 && numLayers <= metadata.model.layers)) return null;
    const layers = await readLayers(file, metadata, numLayers, {predicted: false, gradients: false});
    if (metadata.options.predictors) {
      for (const [l, layer] of layers.entries())
        layers[l] = {...layer, predicted: await keptPredicted(path, l, metadata)};
    }
    const names = [...file.tensors.keys()].filter((name) => name.startsWith('hidden.'));
    names.sort((a, b) => Number(a.slice(7)) - Number(b.slice(7)));
    const hidden: Float32Array[] = [];
    for (const name of names) hidden.push(new Float32Array((await file.readBytes(name)).buffer));
    return {layers, metadata, hidden};
  } catch {
    return null; // it is only a short cut
  } finally {
    await file.close();
  }
}

/** Removes what was kept. */
export async function removeProgress(path: string): Promise<void> {
  await rm(path, {force: true});
  await rm(predictedFolder(path), {recursive: true, force: true});
}
