// Tokens assigned to experts evenly (BASE layers, Lewis et al. 2021, arXiv 2103.16716).
import * as tf from '../../engine/tfjs.js';
import {type Routed, type RouterInput, routerLogits, routeTo, scoreScale} from '../../model/router.js';
import {pickColumns, topIndices} from '../../op/top-k.js';
import {untaped} from '../../op/untaped.js';

/** Steps towards the prices of experts; what they are softened by falls from first to last, in deviations of the logits. */
const [STEPS, FIRST, LAST] = [12, 0.5, 0.05];
/** Rounds in which tokens bid for the experts that still have room. */
const ROUNDS = 4;
/** Below any price. */
const NEVER = -1e30;

/** Sends each token to the one expert that {@link balancedAssignment} gives it; it weighs what the model says. */
export function assignEvenly({x_TD, params, layout, routing}: RouterInput): Routed {
  const logit_TE = routerLogits(x_TD, params, layout);
  return {logit_TE, route: routeTo(balancedAssignment(logit_TE), logit_TE, routing, scoreScale(params))};
}

/**
 * An expert for every token, none with more than ⌈T / E⌉, so that the sum of their logits is near the largest there is;
 * int32 [T, 1], constant to the gradient.
 *
 * An approximation in a fixed number of tensor operations of what the paper solves by an auction. First prices of experts at which
 * tokens ask for equal numbers, by Sinkhorn steps of falling temperature. Then tokens, those first that would lose most by
 * their second choice, take the best expert at these prices that has room, in rounds; who is still left after the last one
 * takes what is free, whatever it gives. Measured (test/train/routing/base.test.ts), it gains 98 to 100% of what the exact optimum gains
 * over an even choice at random.
 */
export function balancedAssignment(logit_TE: tf.Tensor2D): tf.Tensor2D {
  const [T, E] = logit_TE.shape;
  if (E === 1) return tf.zeros([T, 1], 'int32');
  return untaped(() => {
    const value_TE = tf.sub(logit_TE, prices(logit_TE)) as tf.Tensor2D;
    const order_T = byRegret(value_TE);
    const expert_T = takeInTurn(tf.gather(value_TE, order_T));
    const back_T = tf.reshape(topIndices(tf.reshape(tf.neg(tf.cast(order_T, 'float32')), [1, T]), T), [T]);
    return tf.reshape(tf.gather(expert_T, back_T as tf.Tensor1D), [T, 1]);
  }) as tf.Tensor2D;
}

/** Prices [E] at which the softened demand for every expert is T / E: log-domain Sinkhorn (Cuturi 2013). */
function prices(logit_TE: tf.Tensor2D): tf.Tensor1D {
  const [T, E] = logit_TE.shape;
  const {mean, variance} = tf.moments(logit_TE, 0);
  const deviation = tf.add(tf.sqrt(tf.mean(variance)), 1e-20);
  let price_E: tf.Tensor = mean;
  for (let step = 0; step < STEPS; step++) {
    const softness = tf.mul(deviation, FIRST * (LAST / FIRST) ** (step / (STEPS - 1)));
    const share_TE = tf.logSoftmax(tf.div(tf.sub(logit_TE, price_E), softness));
    const excess_E = tf.sub(tf.logSumExp(share_TE, 0), Math.log(T / E));
    price_E = tf.add(price_E, tf.mul(excess_E, softness));
  }
  return price_E as tf.Tensor1D;
}

/** Tokens in falling order of what their second choice is worse by, int32 [T]. */
function byRegret(value_TE: tf.Tensor2D): tf.Tensor1D {
  const [T] = value_TE.shape;
  const [first_T1, second_T1] = tf.split(pickColumns(value_TE, topIndices(value_TE, 2)), 2, 1) as [
    tf.Tensor,
    tf.Tensor,
  ];
  const regret_1T = tf.reshape(tf.sub(first_T1, second_T1), [1, T]) as tf.Tensor2D;
  return tf.reshape(topIndices(regret_1T, T), [T]);
}

/** Gives tokens, the first ones first, the best expert that has room, int32 [T]. */
function takeInTurn(value_TE: tf.Tensor2D): tf.Tensor1D {
  const [T, E] = value_TE.shape;
  const rows = Math.ceil(T / E);
  let taken_TE: tf.Tensor = tf.zeros([T, E]);
  for (let round = 0; round < ROUNDS; round++) {
    const load_E = tf.sum(taken_TE, 0);
    const open_TE = tf.where(tf.less(load_E, rows), value_TE, NEVER) as tf.Tensor2D;
    const waiting_T1 = tf.sub(1, tf.sum(taken_TE, 1, true));
    const bid_TE = tf.mul(tf.oneHot(tf.argMax(open_TE, 1), E), waiting_T1);
    const place_TE = tf.add(tf.cumsum(bid_TE, 0, true), load_E);
    taken_TE = tf.add(taken_TE, tf.mul(bid_TE, tf.cast(tf.less(place_TE, rows), 'float32')));
  }
  return tf.where(tf.greater(tf.sum(taken_TE, 1), 0), tf.argMax(taken_TE, 1), leftOver(taken_TE, rows)) as tf.Tensor1D;
}

/** Fills what is free with the tokens that have nothing, one after the other; int32 [T], of use for those alone. */
function leftOver(taken_TE: tf.Tensor, rows: number): tf.Tensor1D {
  const free_E = tf.sub(rows, tf.sum(taken_TE, 0));
  const place_T1 = tf.cumsum(tf.sub(1, tf.sum(taken_TE, 1, true)), 0, true);
  const before_TE = tf.lessEqual(tf.cumsum(free_E, 0), place_T1);
  return tf.sum(tf.cast(before_TE, 'int32'), 1);
}
