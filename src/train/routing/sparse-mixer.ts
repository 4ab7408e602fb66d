// Experts that are drawn, with an estimate of what drawing others would change (SparseMixer-v2: Liu et al. 2024, GRIN,
// arXiv 2409.12136; the code is that of Phi-3.5-MoE, `sparsemixer` of transformers).
import * as tf from '../../engine/tfjs.js';
import {withinReach} from '../../model/reach.js';
import {type Routed, type RouterInput, routerLogits} from '../../model/router.js';
import {randomUniform} from '../../op/random.js';
import {pickColumns} from '../../op/top-k.js';
import {untaped} from '../../op/untaped.js';

/** Heun's third-order rule, `f(x) - f(0) = (f'(x) + 3·f'(x/3))·x/4`, takes the first point this often, else a third of the way. */
const FULL_SHARE = 0.25;

/** Routes by {@link drawExperts}, whose weights count `scale` times; scores are softmax over all experts. */
export function sparseMixer({x_TD, params, layout, routing}: RouterInput, seed_2: tf.Tensor1D): Routed {
  const {topK, experts} = layout;
  const {scale, reach} = routing;
  if (reach === undefined) throw new Error('experts are drawn within reach, and the model has none');
  const logit_TE = routerLogits(x_TD, params, layout);
  const draws = randomUniform(seed_2, [topK, x_TD.shape[0], experts + 1]) as tf.Tensor3D;
  const {expert_TK, weight_TK} = drawExperts(logit_TE, reach, draws);
  const scaled_TK: tf.Tensor2D = scale === 1 ? weight_TK : tf.mul(weight_TK, scale);
  return {logit_TE, route: {expert_TK, weight_TK: scaled_TK, score_TE: tf.softmax(logit_TE)}};
}

/**
 * Draws K experts one after the other, each from the softmax of those {@link withinReach}; it weighs its share of that softmax.
 *
 * Unless it is the likeliest one, three times out of four its weight is a third of that, while the gradient reaches the logits
 * as if it were whole: so the gradient of a loss L(weight · result) is, over many draws, that of
 * `Σ_e p_e · (L(p_e · result_e) − L(0))` to the choice, up to the third order in each result.
 * @param draw_KTX even numbers in [0, 1), float32 [K, T, E + 1]: one for each expert, and one for the point of Heun's rule.
 */
export function drawExperts(
  logit_TE: tf.Tensor2D,
  reach: number,
  draw_KTX: tf.Tensor3D,
): {readonly expert_TK: tf.Tensor2D; readonly weight_TK: tf.Tensor2D} {
  const E = logit_TE.shape[1];
  const experts: tf.Tensor2D[] = [];
  const weights: tf.Tensor2D[] = [];
  for (const draw_TX of untaped(() => tf.unstack(draw_KTX)) as tf.Tensor2D[]) {
    const masked_TE = withinReach(logit_TE, experts, reach);
    const score_TE: tf.Tensor2D = tf.softmax(masked_TE);
    const {expert_T1, factor_T1} = untaped(() => drawOne(masked_TE, tf.split(draw_TX, [E, 1], 1) as Draws));
    weights.push(shrunk(pickColumns(score_TE, expert_T1), factor_T1));
    experts.push(expert_T1);
  }
  return {expert_TK: untaped(() => tf.concat2d(experts, 1)), weight_TK: tf.concat2d(weights, 1)};
}

type Draws = [perExpert: tf.Tensor2D, point: tf.Tensor2D];

/** The largest logit after Gumbel noise, int32 [T, 1], and what its weight is multiplied with. */
function drawOne(
  masked_TE: tf.Tensor2D,
  [draw_TE, point_T1]: Draws,
): {readonly expert_T1: tf.Tensor2D; readonly factor_T1: tf.Tensor2D} {
  const gumbel_TE = tf.neg(tf.log(tf.neg(tf.log(tf.maximum(draw_TE, 1e-30)))));
  const expert_T = tf.argMax(tf.add(masked_TE, gumbel_TE), 1) as tf.Tensor1D;
  const isLikeliest_T1 = tf.expandDims(tf.equal(expert_T, tf.argMax(masked_TE, 1)), 1);
  const isFull_T1 = tf.logicalOr(isLikeliest_T1, tf.greater(point_T1, 1 - FULL_SHARE));
  return {expert_T1: tf.expandDims(expert_T, 1), factor_T1: tf.where(isFull_T1, 1, 1 / 3) as tf.Tensor2D};
}

/** `weight ⊙ factor`, whose gradient passes as if every factor were 1. */
function shrunk(weight_T1: tf.Tensor2D, factor_T1: tf.Tensor2D): tf.Tensor2D {
  return tf.customGrad((weight) => ({
    value: tf.mul(weight as tf.Tensor2D, factor_T1),
    gradFunc: (dy: tf.Tensor) => dy,
  }))(weight_T1) as tf.Tensor2D;
}
