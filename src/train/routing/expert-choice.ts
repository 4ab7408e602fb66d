// Experts that choose their tokens (Zhou et al. 2022, arXiv 2202.09368).
import * as tf from '../../engine/tfjs.js';
import type {MoeLayout} from '../../model/architecture.js';
import {type ExpertPicks, type Routed, type RouterInput, routeByModel} from '../../model/router.js';
import {takeRows} from '../../op/expert-choice.js';
import {topIndices} from '../../op/top-k.js';
import {untaped} from '../../op/untaped.js';

/**
 * Each expert takes the C tokens of its highest scores, which weigh those scores (eq. 1 and 2): every expert is equally
 * used, a token by none of them up to all.
 */
export function expertChoice(input: RouterInput, capacityFactor: number): Routed {
  const routed = routeByModel(input);
  const {layout, routing} = input;
  const {score_TE} = routed.route;
  return {...routed, picks: picksOf(score_TE, rowsOfExpert(capacityFactor, score_TE.shape[0], layout), routing)};
}

/** C, the tokens of each expert. */
export function rowsOfExpert(
  capacityFactor: number,
  T: number,
  {experts, topK}: Pick<MoeLayout, 'experts' | 'topK'>,
): number {
  return Math.floor((capacityFactor * T * topK) / experts);
}

function picksOf(score_TE: tf.Tensor2D, C: number, {weight, scale}: RouterInput['routing']): ExpertPicks {
  const [T, E] = score_TE.shape;
  const score_ET: tf.Tensor2D = tf.transpose(score_TE);
  const token_EC = topIndices(score_ET, C);
  const token_R = untaped(() => tf.reshape(token_EC, [E * C])) as tf.Tensor1D;
  if (weight === 'one') return {token_R, weight_R: tf.fill([E * C], scale)};
  const place_R = untaped(() => {
    const first_E1 = tf.tensor2d(
      Int32Array.from({length: E}, (_, e) => e * T),
      [E, 1],
      'int32',
    );
    return tf.reshape(tf.add(token_EC, first_E1), [E * C]);
  }) as tf.Tensor1D;
  const picked = tf.reshape(takeRows(tf.reshape(score_ET, [E * T, 1]), place_R), [E * C]) as tf.Tensor1D;
  return {token_R, weight_R: scale === 1 ? picked : (tf.mul(picked, scale) as tf.Tensor1D)};
}
