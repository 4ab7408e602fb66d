// Which neurons a linear router could choose: their activity as the FFN's input foresees it, layer by layer.
import * as tf from '../engine/tfjs.js';
import {throughAttention} from '../model/decoder.js';
import {hiddenTensor, type LayerFunction, type Walk} from '../model/walk.js';
import {ModelError} from '../util/errors.js';
import {MOST_COLUMNS, randomDirections} from './random-projection.js';
import {type ActivitySums, addSums, batchSums, noSums, predictedProfiles} from './ridge.js';
import {denseFfn} from './watch.js';

/** A function from the hidden states before the loaded layer to sums of its neurons' activity. */
export type Sums = (x_TD: tf.Tensor2D) => Promise<ReturnType<typeof batchSums>>;

/** Compiles the sums of each neuron of a layer. */
export function compileSums(walk: Walk): Sums {
  return walk.compile('activity_sums', ({params, context}, x_TD: tf.Tensor2D) =>
    batchSums(throughAttention(x_TD, params, walk.architecture, context).y_TD, denseFfn(params.ffn)),
  );
}

/** Compiles the sums of each expert's neurons together, those with a 1 in its row of `member_EF`. */
export function compileExpertSums(
  walk: Walk,
): LayerFunction<[x_TD: tf.Tensor2D, member_EF: tf.Tensor2D], ReturnType<typeof batchSums>> {
  return walk.compile('expert_activity_sums', ({params, context}, x_TD: tf.Tensor2D, member_EF: tf.Tensor2D) =>
    batchSums(throughAttention(x_TD, params, walk.architecture, context).y_TD, denseFfn(params.ffn), member_EF),
  );
}

/** The sums of the loaded layer over some hidden states, of as many activities as `sums` gives. */
export async function sumActivity(
  walk: Walk,
  sums: Sums,
  batches: readonly Float32Array[],
  numActivities: number,
): Promise<ActivitySums> {
  const {width} = walk.architecture;
  let total = noSums(width, numActivities);
  for (const batch of batches) {
    const x_TD = hiddenTensor(walk, batch);
    const results = await sums(x_TD);
    const entries = Object.entries(results).map(async ([key, tensor]) => [key, await tensor.data()] as const);
    const parts = Object.fromEntries(await Promise.all(entries)) as Parameters<typeof addSums>[2];
    total = addSums(total, batch.length / width, parts);
    tf.dispose([x_TD, ...Object.values(results)]);
  }
  return total;
}

/** What a linear router could foresee of the loaded layer's neurons on the walk's text, see `PredictedActivity`; [F, P]. */
export async function predictedActivity(walk: Walk, sums: Sums, numNeurons: number): Promise<Float32Array> {
  const total = await sumActivity(walk, sums, walk.batches, numNeurons);
  const profile = tf.tidy(() => {
    const D = walk.architecture.width;
    return predictedProfiles(total, D <= MOST_COLUMNS ? null : projection(D));
  });
  const profile_FP = (await profile.data()) as Float32Array;
  profile.dispose();
  if (profile_FP.every(Number.isFinite)) return profile_FP;
  throw new ModelError(
    'What is foreseen of the neurons is not finite: the inputs of this layer span too few directions.',
    {
      hint: 'Calibrate on more tokens.',
    },
  );
}

function projection(D: number): tf.Tensor2D {
  return tf.tensor2d(randomDirections(D, 'predicted-activity'), [D, MOST_COLUMNS]);
}
