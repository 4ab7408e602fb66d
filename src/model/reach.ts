// Experts that are near enough to the likeliest one (Phi-3.5-MoE; GRIN, Liu et al. 2024, arXiv 2409.12136).
import * as tf from '../engine/tfjs.js';
import {pickColumns} from '../op/top-k.js';
import {untaped} from '../op/untaped.js';

/** The logit of an expert out of reach. */
const NEVER = -1e30;

/**
 * Logits [T, E] with -1e30 for experts that were chosen before, and for those whose logit is further than
 * `reach · max(|logit|, largest)` from the largest of the others.
 *
 * @param before the experts chosen before, int32 [T, 1] each.
 */
export function withinReach(logit_TE: tf.Tensor2D, before: readonly tf.Tensor2D[], reach: number): tf.Tensor2D {
  const isWithin_TE = untaped(() => {
    const E = logit_TE.shape[1];
    const gone = before.map((expert_T1) => tf.reshape(tf.oneHot(expert_T1, E), logit_TE.shape));
    const gone_TE: tf.Tensor = gone.reduce((sum, one) => tf.add(sum, one), tf.zeros(logit_TE.shape));
    const isLeft_TE = tf.equal(gone_TE, 0);
    const largest_T1 = tf.max(tf.where(isLeft_TE, logit_TE, NEVER), 1, true);
    const reach_TE = tf.mul(tf.maximum(tf.abs(logit_TE), largest_T1), reach);
    return tf.logicalAnd(isLeft_TE, tf.lessEqual(tf.sub(largest_T1, logit_TE), reach_TE)) as tf.Tensor2D;
  });
  return tf.where(isWithin_TE, logit_TE, NEVER) as tf.Tensor2D;
}

/** What each chosen expert [T, K] weighs: its softmax among those within reach when its turn came. */
export function reachedScores(logit_TE: tf.Tensor2D, expert_TK: tf.Tensor2D, reach: number): tf.Tensor2D {
  const experts = untaped(() => tf.split(expert_TK, expert_TK.shape[1], 1)) as tf.Tensor2D[];
  const weights = experts.map((expert_T1, k) =>
    pickColumns(tf.softmax(withinReach(logit_TE, experts.slice(0, k), reach)), expert_T1),
  );
  return tf.concat2d(weights, 1);
}
