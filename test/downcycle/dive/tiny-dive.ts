// A calibration text of the tiny llama, its profile, and the model pruned by hand.
import type {Calibration} from '../../../src/downcycle/calibration.js';
import {openDense} from '../../../src/downcycle/model-source.js';
import type {Profile} from '../../../src/downcycle/profile-file.js';
import {profileText} from '../../../src/downcycle/profile-model.js';
import {profileSchema} from '../../../src/downcycle/profile-options.js';
import {openModelFolder} from '../../../src/format/model-folder.js';
import {SOFTMAX_ROUTING} from '../../../src/model/architecture.js';
import {loadParameters} from '../../../src/model/load.js';
import {createRng} from '../../../src/util/rng.js';
import type {ReferenceModel} from '../../golden/reference.js';
import {TINY_LLAMA, tinyArchitecture} from '../../model/tiny-llama.js';

export const SAMPLE = 16;
export const NUM_TASKS = 3;
const SAMPLES = 2 * NUM_TASKS;
/** FFN width of the tiny llama. */
export const F = 24;
const D = 16;

/** Samples of three tasks, each of which draws its tokens from a third of the vocabulary. */
export function tinyCalibration(): Calibration {
  const rng = createRng(4, 'tokens');
  const taskOfSample_J = Int32Array.from({length: SAMPLES}, (_, j) => Math.floor(j / 2));
  const tokens = Int32Array.from(
    {length: SAMPLES * SAMPLE},
    (_, i) => 10 * taskOfSample_J[Math.floor(i / SAMPLE)]! + rng.int(12),
  );
  return {tokens, sequenceLength: SAMPLE, tasks: ['prose', 'code', 'verse'], taskOfSample_J, hash: 'h'};
}

/** What the tiny llama does on a text. The engine must have been started. */
export async function watched(calibration: Calibration, partial: string, model = TINY_LLAMA): Promise<Profile> {
  const source = await openDense(model);
  try {
    const profile = profileSchema.parse({samplesPerTask: 2, tokensPerSample: SAMPLE, markers: {count: 4}});
    return await profileText(source, calibration, {profile, partial});
  } finally {
    await source.folder.close();
  }
}

/** The parameters of the tiny llama by path, in our layout. */
export async function tinyWeights(model = TINY_LLAMA): Promise<Record<string, {values: Float32Array}>> {
  const folder = await openModelFolder(model);
  const weights: Record<string, {values: Float32Array}> = {};
  await loadParameters(folder, tinyArchitecture, ({path}, values) => {
    weights[path] = {values};
  });
  await folder.close();
  return weights;
}

/** Neurons that a layer keeps, and the mean of h of every neuron, by loops over the samples of some tasks. */
export function prunedByHand({layers}: Profile, layer: number, tasks: readonly number[], width: number) {
  const {hMean_JF, hSquare_JF, taskOfSample_J, downNorm_F} = layers[layer]!;
  const samples = Array.from(taskOfSample_J).flatMap((task, j) => (tasks.includes(task) ? [j] : []));
  const mean = (values: Float32Array, i: number): number =>
    samples.reduce((sum, j) => sum + values[j * F + i]!, 0) / samples.length;
  const means = Array.from({length: F}, (_, i) => mean(hMean_JF, i));
  const scores = means.map((one, i) => (mean(hSquare_JF, i) - one * one) * downNorm_F[i]! ** 2);
  const kept = [...scores.keys()].sort((a, b) => scores[b]! - scores[a]!).slice(0, width);
  return {kept: kept.sort((a, b) => a - b), means};
}

/** `Σ mean(h_i)·Wd_i` over the neurons that are not kept; down is [F, D]. */
export function biasByHand(down: ArrayLike<number>, kept: readonly number[], means: readonly number[]): number[] {
  const bias = new Array<number>(D).fill(0);
  for (let i = 0; i < F; i++) {
    if (kept.includes(i)) continue;
    for (let d = 0; d < D; d++) bias[d]! += means[i]! * down[i * D + d]!;
  }
  return bias;
}

/** The tiny llama pruned on some tasks, its FFNs as single experts that are always chosen, at weight 1. */
export function prunedReference(
  weights: Awaited<ReturnType<typeof tinyWeights>>,
  profile: Profile,
  tasks: readonly number[],
  width: number,
): ReferenceModel {
  const pruned: Record<string, {values: ArrayLike<number>}> = {...weights};
  for (const layer of [0, 1]) {
    const path = `layers.${layer}.ffn`;
    const {kept, means} = prunedByHand(profile, layer, tasks, width);
    const columns = (name: string): number[] =>
      Array.from({length: D}, (_, d) => kept.map((id) => weights[`${path}.${name}`]!.values[d * F + id]!)).flat();
    const down = weights[`${path}.down`]!.values;
    pruned[`${path}.router`] = {values: new Float32Array(D)};
    pruned[`${path}.experts.gate`] = {values: columns('gate')};
    pruned[`${path}.experts.up`] = {values: columns('up')};
    pruned[`${path}.experts.down`] = {values: kept.flatMap((id) => [...down.subarray(id * D, (id + 1) * D)])};
    pruned[`${path}.expertBias`] = {values: biasByHand(down, kept, means)};
  }
  const layout = {
    kind: 'moe',
    experts: 1,
    topK: 1,
    expertWidth: width,
    sharedWidth: 0,
    selectionBias: false,
    router: 'linear',
    expertBias: true,
  } as const;
  const routing = {...SOFTMAX_ROUTING, weight: 'one'} as const;
  return {architecture: {...tinyArchitecture, ffn: [layout, layout], routing}, weights: pruned};
}
