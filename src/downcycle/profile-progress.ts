// What a profile that is being made leaves on disk, so that one that was stopped goes on.
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import {openSafetensors} from '../format/safetensors.js';
import {removeScratch, scratchBeside} from '../util/atomic.js';
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

const FORMAT = 'downcycle-profile-progress-2';

/** Keeps how far a profile is, in place of what was kept before. @throws EnvironmentError if the disk is full. */
export async function saveProgress(path: string, {layers, metadata, hidden}: Progress): Promise<void> {
  const head = {format: FORMAT, profile: JSON.stringify(metadata), layers: String(layers.length)};
  const parts = hidden.map((data, i) => ({
    spec: {name: `hidden.${i}`, dtype: 'F32' as const, shape: [data.length]},
    data,
  }));
  await writeNumbers(path, [...profileNumbers(layers, metadata.options.markers.count), ...parts], head);
}

/**
 * Keeps what is foreseen of a layer's neurons, [F, P], in a file of this process beside `path`, to be read when it is
 * asked for.
 */
export async function keepPredicted(
  path: string,
  layer: number,
  profile_FP: Float32Array,
  {model: {ffnWidth: F}}: ProfileMetadata,
): Promise<PredictedActivity> {
  const kept = join(await scratchBeside(path), `${layer}.safetensors`);
  await writeNumbers(kept, [predictedNumbers(layer, profile_FP, [F, profile_FP.length / F])], {});
  const file = await openSafetensors(kept);
  try {
    return predictedIn(file, layer, F);
  } finally {
    await file.close();
  }
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
    const has = {predicted: metadata.options.predictors, gradients: false};
    const layers = await readLayers(file, metadata, numLayers, has);
    for (const [l, layer] of layers.entries()) {
      // The file is replaced as the profile goes on, and another process may remove it.
      const profile_FP = await layer.predicted?.read();
      if (profile_FP) layers[l] = {...layer, predicted: await keepPredicted(path, l, profile_FP, metadata)};
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
  await removeScratch(path);
}
