// Which experts a text uses most: those that expert-specialized finetuning trains (ESFT, arXiv 2407.01906).

import {createLoader} from '../data/loader.js';
import {compile} from '../engine/compile.js';
import * as tf from '../engine/tfjs.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {weightsOf} from '../model/adapter.js';
import {moeLayouts} from '../model/architecture.js';
import {batchTensor, splitBatch} from '../model/batch.js';
import {decode} from '../model/decoder.js';
import type {Model} from '../model/model.js';
import type {RouterTrace} from '../model/moe.js';
import {oneHot} from '../op/one-hot.js';
import type {EsftOptions} from './finetune.js';
import type {Session} from './session.js';

/** By MoE layer, the routed experts that train, in rising order. */
export type ChosenExperts = readonly (readonly number[])[];

/** The experts that the first rows of a run's text use most, in the model as it is before training. */
export async function chooseExperts(
  {run, model, sources, engine}: Session,
  {by, share, rows}: EsftOptions,
): Promise<ChosenExperts> {
  const shards = sources.map(({name, weight, train}) => ({name, weight, shard: train}));
  const {sequences} = run.train.batch;
  const loader = createLoader({shards, sequences, seed: run.seed, damaged: run.data.damaged});
  const batches: ShardRows[] = [];
  for (let read = 0; read < rows; read += sequences) batches.push(await loader.next());
  const use = await expertUse(model, batches, {
    by,
    sequenceLength: run.data.sequenceLength,
    precision: engine.precision,
  });
  return use.map((use_E) => mostUsed(use_E, share));
}

/**
 * The fewest experts whose use is at least `share` of all use (section 3.3), in rising order.
 *
 * @param use_E what each expert is used, in any unit; of equal ones the first is taken.
 */
export function mostUsed(use_E: readonly number[], share: number): number[] {
  const goal = share * use_E.reduce((sum, use) => sum + use, 0);
  const ranked = [...use_E.keys()].sort((a, b) => (use_E[b] ?? 0) - (use_E[a] ?? 0) || a - b);
  let reached = 0;
  const chosen = ranked.filter((e, place) => {
    if (place > 0 && reached >= goal) return false;
    reached += use_E[e] ?? 0;
    return true;
  });
  return chosen.sort((a, b) => a - b);
}

/** How use is counted, and how the text is cut. */
export interface UseOptions {
  /** The tokens sent to an expert, or what it weighs for them together. */
  readonly by: EsftOptions['by'];
  readonly sequenceLength: number;
  readonly precision: Session['engine']['precision'];
}

/** What each expert is used by rows of text, by MoE layer. */
export async function expertUse(
  model: Pick<Model, 'architecture' | 'parameters'>,
  batches: readonly ShardRows[],
  {by, sequenceLength, precision}: UseOptions,
): Promise<number[][]> {
  const watch = compile(
    (batch_NBS: tf.Tensor3D): {use: tf.Tensor} => {
      const {routers} = decode(weightsOf(model), model.architecture, splitBatch(batch_NBS).input);
      return {use: tf.concat1d(routers.map((router) => useOf(router, by)))};
    },
    {name: 'expert_use', precision},
  );
  const sums = moeLayouts(model.architecture).map(({experts}) => Array.from({length: experts}, () => 0));
  try {
    for (const rows of batches) addUse(sums, await usedBy(watch, rows, sequenceLength));
  } finally {
    watch.dispose();
  }
  return sums;
}

function useOf({load_E, expert_TK, weight_TK}: RouterTrace, by: EsftOptions['by']): tf.Tensor1D {
  if (by === 'tokens') return tf.cast(load_E, 'float32');
  const chosen_TKE = oneHot(expert_TK, load_E.shape[0]);
  return tf.sum(tf.mul(tf.expandDims(weight_TK, -1), chosen_TKE), [0, 1]);
}

async function usedBy(
  watch: (batch_NBS: tf.Tensor3D) => Promise<{use: tf.Tensor}>,
  rows: ShardRows,
  sequenceLength: number,
): Promise<Float32Array> {
  const batch_NBS = batchTensor(rows, sequenceLength);
  try {
    const {use} = await watch(batch_NBS);
    const values = await use.data<'float32'>();
    use.dispose();
    return values;
  } finally {
    batch_NBS.dispose();
  }
}

/** Adds what one batch used, layers one after another. */
function addUse(sums: readonly number[][], use: Float32Array): void {
  let next = 0;
  for (const sum_E of sums) for (const e of sum_E.keys()) sum_E[e] = (sum_E[e] ?? 0) + (use[next++] ?? 0);
}
