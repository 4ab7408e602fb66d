// Routers that are disturbed while training.
import * as tf from '../../engine/tfjs.js';
import {
  type Routed,
  type RouterInput,
  route,
  routeByModel,
  routerLogits,
  scoreScale,
  selectionBias,
} from '../../model/router.js';
import {oneHot} from '../../op/one-hot.js';
import {randomNormal, randomUniform} from '../../op/random.js';
import {pickColumns, topIndices} from '../../op/top-k.js';
import {untaped} from '../../op/untaped.js';

/** Takes a logit out of any choice and leaves it finite. */
const OUT = -1e9;

/** Routes by `x ⊙ u` with u even between 1 ± amount (Switch Transformer, arXiv 2101.03961, section 2.2). */
export function jitter(input: RouterInput, amount: number, seed_2: tf.Tensor1D): Routed {
  const factor_TD = untaped(() => {
    const uniform_TD = randomUniform(seed_2, [...input.x_TD.shape]);
    return tf.add(tf.mul(uniform_TD, 2 * amount), 1 - amount);
  });
  return routeByModel({...input, x_TD: tf.mul(input.x_TD, factor_TD)});
}

/**
 * Routes by `logits + std · N(0, 1)`, which decides choice and weights (Shazeer et al. 2017, eq. 3 to 5, noise of a fixed
 * size).
 *
 * Beside it the chance of each expert to be among the K if its own noise were drawn again (eq. 8 and 9); none where a
 * selection bias or a top p moves the choice, or where every expert is chosen.
 */
export function noisy({x_TD, params, layout, routing}: RouterInput, std: number, seed_2: tf.Tensor1D): Routed {
  const clean_TE = routerLogits(x_TD, params, layout);
  const noise_TE = untaped(() => tf.mul(randomNormal(seed_2, [...clean_TE.shape]), std));
  const logit_TE: tf.Tensor2D = tf.add(clean_TE, noise_TE);
  const bias_E = selectionBias(params);
  const {topK, experts} = layout;
  const hasChance = !bias_E && topK < experts && routing.topP === undefined;
  return {
    logit_TE,
    route: route(logit_TE, bias_E, topK, routing, scoreScale(params)),
    ...(hasChance && {chance_TE: chances(clean_TE, logit_TE, topK, std)}),
  };
}

/** `Φ((clean_i − the K-th largest of the other noisy ones) / std)`. */
function chances(clean_TE: tf.Tensor2D, noisy_TE: tf.Tensor2D, topK: number, std: number): tf.Tensor2D {
  const top_TK = pickColumns(noisy_TE, topIndices(noisy_TE, topK + 1));
  const nth = (n: number): tf.Tensor2D => tf.slice(top_TK, [0, n], [-1, 1]);
  const isIn_TE = untaped(() => tf.greater(noisy_TE, nth(topK)));
  const distance = (rival_T1: tf.Tensor2D): tf.Tensor2D => tf.div(tf.sub(clean_TE, rival_T1), std);
  const z_TE: tf.Tensor2D = tf.where(isIn_TE, distance(nth(topK)), distance(nth(topK - 1)));
  return tf.mul(tf.add(tf.erf(tf.div(z_TE, Math.SQRT2)), 1), 0.5);
}

/** Routes among those experts that are left when a share of them is drawn for all tokens and left out. */
export function dropExperts({x_TD, params, layout, routing}: RouterInput, share: number, seed_2: tf.Tensor1D): Routed {
  const {experts: E, topK} = layout;
  const out_E = untaped(() => {
    const draw_1E = tf.reshape(randomUniform(seed_2, [E]), [1, E]) as tf.Tensor2D;
    return tf.mul(tf.sum(oneHot(topIndices(draw_1E, numDropped(share, E)), E), [0, 1]), OUT);
  }) as tf.Tensor1D;
  const bias_E = selectionBias(params);
  const moved_E = bias_E ? (tf.add(bias_E, out_E) as tf.Tensor1D) : out_E;
  const logit_TE: tf.Tensor2D = tf.add(routerLogits(x_TD, params, layout), out_E);
  return {logit_TE, route: route(logit_TE, moved_E, topK, routing, scoreScale(params))};
}

/** How many of E experts are left out. */
export function numDropped(share: number, E: number): number {
  return Math.round(share * E);
}
