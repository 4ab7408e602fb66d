// How well a model that was pruned on one task foretells the text of every other. Shapes: n tasks, T tokens of a batch, F neurons.
import * as tf from '../../engine/tfjs.js';
import {addFfn, throughAttention} from '../../model/decoder.js';
import {gluHidden} from '../../model/glu.js';
import {hiddenTensor, type LayerFunction, startWalk, type Walk} from '../../model/walk.js';
import {openHead, type WalkHead} from '../../model/walk-head.js';
import {matMul} from '../../op/mat-mul.js';
import {ModelError} from '../../util/errors.js';
import {joinFloats} from '../../util/join.js';
import type {Calibration} from '../calibration.js';
import type {DenseSource} from '../model-source.js';
import {denseFfn} from '../watch.js';
import type {Pruning} from './prune.js';

/** Bytes of hidden states that are kept at once; more pruned models go through the layers in several rounds. */
const HIDDEN_BYTES = 2 ** 30;

/** A pruned model: what is left of the FFN of each layer. */
export type PrunedLayers = readonly Pruning[];

/** Told how many layers of all rounds are done. */
export type OnLayer = (done: number, total: number) => void;

/** How pruned models are measured. */
export interface CrossOptions {
  readonly onLayer?: OnLayer | undefined;
  /** Bytes of hidden states that are kept at once, at least those of one model; 1 GiB by default. */
  readonly hiddenBytes?: number;
}

/**
 * Perplexity of each pruned model on the calibration text of each task, [models, n].
 *
 * All models go through a layer while it is in memory: the weights of one layer and, for each model of a round, the
 * hidden states of the text. The engine must have been started.
 * @throws ModelError if a loss is not finite.
 */
export async function crossPerplexity(
  {folder, architecture}: DenseSource,
  calibration: Calibration,
  models: readonly PrunedLayers[],
  {onLayer, hiddenBytes = HIDDEN_BYTES}: CrossOptions = {},
): Promise<number[][]> {
  const walk = await startWalk(folder, architecture, calibration);
  const layer = compilePruned(walk);
  try {
    const head = await openHead(folder, walk, calibration);
    const textBytes = walk.batches.reduce((sum, {byteLength}) => sum + byteLength, 0);
    const perRound = Math.max(1, Math.floor(hiddenBytes / textBytes));
    const total = Math.ceil(models.length / perRound) * architecture.ffn.length;
    const result: number[][] = [];
    let done = 0;
    for (let begin = 0; begin < models.length; begin += perRound) {
      const round = models.slice(begin, begin + perRound);
      const hidden = await throughLayers(walk, layer, round, () => onLayer?.(++done, total));
      for (const batches of hidden) result.push(perplexities(await lossesOf(head, batches), calibration));
    }
    return result;
  } finally {
    walk.dispose();
  }
}

type PrunedLayer = LayerFunction<[tf.Tensor2D, tf.Tensor1D, tf.Tensor1D], {next_TD: tf.Tensor}>;

/** A layer whose left out neurons stand at their means: multiplied with their rows of Wd, those are the bias. */
function compilePruned(walk: Walk): PrunedLayer {
  return walk.compile(
    'pruned_layer',
    ({params, context}, x_TD: tf.Tensor2D, kept_F: tf.Tensor1D, mean_F: tf.Tensor1D) => {
      const {h_TD, y_TD} = throughAttention(x_TD, params, walk.architecture, context);
      const ffn = denseFfn(params.ffn);
      const pruned_TF = tf.add(tf.mul(gluHidden(y_TD, ffn), kept_F), mean_F) as tf.Tensor2D;
      return {next_TD: addFfn(h_TD, matMul(pruned_TF, ffn.down), params, walk.architecture)};
    },
  );
}

/** The hidden states of each model after the last layer, batch by batch. */
async function throughLayers(
  walk: Walk,
  layer: PrunedLayer,
  models: readonly PrunedLayers[],
  onLayer: () => void,
): Promise<Float32Array[][]> {
  const hidden = models.map(() => walk.batches.map((batch) => batch.slice()));
  for (let l = 0; l < walk.architecture.ffn.length; l++) {
    await walk.load(l);
    for (const [m, model] of models.entries()) await moveOn(walk, layer, hidden[m] ?? [], model[l]);
    onLayer();
  }
  return hidden;
}

async function moveOn(
  walk: Walk,
  layer: PrunedLayer,
  batches: readonly Float32Array[],
  pruning?: Pruning,
): Promise<void> {
  if (!pruning) throw new Error('a layer of a pruned model is missing');
  const kept = new Float32Array(pruning.mean_F.length);
  for (const id of pruning.kept) kept[id] = 1;
  const [kept_F, mean_F] = [tf.tensor1d(kept), tf.tensor1d(pruning.mean_F)];
  for (const batch of batches) {
    const x_TD = hiddenTensor(walk, batch);
    const {next_TD} = await layer(x_TD, kept_F, mean_F);
    batch.set(await next_TD.data());
    tf.dispose([x_TD, next_TD]);
  }
  tf.dispose([kept_F, mean_F]);
}

async function lossesOf(head: WalkHead, batches: readonly Float32Array[]): Promise<Float32Array> {
  const losses: Float32Array[] = [];
  for (const [b, batch] of batches.entries()) losses.push(await head.losses(batch, b));
  return joinFloats(losses);
}

/** e to the mean loss of the foretold tokens of each task, [n]. */
function perplexities(losses: Float32Array, {tasks, taskOfSample_J, sequenceLength}: Calibration): number[] {
  const sums = new Float64Array(tasks.length);
  for (const [i, loss] of losses.entries()) {
    const task = taskOfSample_J[Math.floor(i / sequenceLength)] as number;
    sums[task] = (sums[task] as number) + loss; // 0 where nothing is foretold
  }
  return tasks.map((name, task) => {
    const samples = taskOfSample_J.filter((one) => one === task).length;
    const perplexity = Math.exp((sums[task] as number) / (samples * (sequenceLength - 1)));
    if (Number.isFinite(perplexity)) return perplexity;
    throw new ModelError(`The loss of a pruned model on the text of ${name} is not a finite number.`, {
      hint: 'Look for weights that are not finite.',
    });
  });
}
