// Where a step's numbers left what float32 holds: asked only once a run has to stop.

import {compile} from '../engine/compile.js';
import * as tf from '../engine/tfjs.js';
import {weightsOf} from '../model/adapter.js';
import {splitBatch} from '../model/batch.js';
import {decode} from '../model/decoder.js';
import type {TrainState} from './state.js';
import {differentiate} from './step-loss.js';
import {type RunnerOptions, type StepSeed, seedWords, type TrainRows, withBatch} from './step-runner.js';

/** The first place of a step that is not finite, in words; null if every number of it is. */
export async function whereNotFinite(
  state: TrainState,
  options: RunnerOptions,
  batches: readonly TrainRows[],
  seed: StepSeed,
): Promise<string | null> {
  const sees = compile(layerSizes(state, options), {name: 'find_layer', precision: options.precision});
  const grows = compile(gradientSizes(state, options), {name: 'find_gradient', precision: options.precision});
  try {
    for (const [i, rows] of batches.entries()) {
      const found = await withBatch(rows, options.sequenceLength, seedWords(seed, i), async (input) => {
        const {batch_NBS, seed_2, taught_2TK} = input;
        const layer = firstNotFinite(await values(await sees(batch_NBS)));
        if (layer >= 0) return describeLayer(layer, state);
        const gradient = firstNotFinite(
          (await values(await grows(batch_NBS, seed_2, ...(taught_2TK ? [taught_2TK] : [])))).reverse(),
        );
        return state.trained.toReversed()[gradient]?.path ?? null;
      });
      if (found !== null) return found;
    }
    return null;
  } finally {
    sees.dispose();
    grows.dispose();
  }
}

/** Sums of |x| of what each FFN sees, and of the last hidden states, [L + 1]. */
function layerSizes(state: TrainState, {capacity}: RunnerOptions) {
  return (batch_NBS: tf.Tensor3D): {sizes: tf.Tensor} => {
    const sizes: tf.Tensor[] = [];
    const onFfnInput = (_: number, y_TD: tf.Tensor2D): unknown => sizes.push(tf.sum(tf.abs(y_TD)));
    const {hidden_TD} = decode(weightsOf(state), state.architecture, splitBatch(batch_NBS).input, {
      capacity,
      onFfnInput,
    });
    return {sizes: tf.stack([...sizes, tf.sum(tf.abs(hidden_TD))])};
  };
}

/** Norms of the gradients in the order of what trains, which is that of the forward pass. */
function gradientSizes(state: TrainState, options: RunnerOptions) {
  return (batch_NBS: tf.Tensor3D, seed_2: tf.Tensor1D, ...[taught_2TK]: tf.Tensor3D[]): {sizes: tf.Tensor} => {
    const {gradients} = differentiate(state, options, {batch_NBS, seed_2, taught_2TK});
    return {sizes: tf.stack(gradients.map((gradient) => tf.sqrt(tf.sum(tf.square(gradient)))))};
  };
}

async function values({sizes}: {readonly sizes: tf.Tensor}): Promise<number[]> {
  try {
    return [...(await sizes.data<'float32'>())];
  } finally {
    sizes.dispose();
  }
}

function firstNotFinite(sizes: readonly number[]): number {
  return sizes.findIndex((size) => !Number.isFinite(size));
}

function describeLayer(layer: number, {architecture}: TrainState): string {
  return layer < architecture.ffn.length ? `hidden states of layers.${layer}` : 'hidden states after the last layer';
}
