// Experts inside experts. Shapes besides those of architecture.ts: G routed experts, e inside each, k of them chosen.
import * as tf from '../engine/tfjs.js';
import {EXACT_MATRIX} from '../op/mat-mul.js';
import {pickBlocks, topIndices} from '../op/top-k.js';
import {untaped} from '../op/untaped.js';
import {mapWeight, solid, type Weight} from '../op/weight.js';
import {type InnerLayout, type MoeLayout, type Routing, SOFTMAX_ROUTING} from './architecture.js';
import type {GluTree, InnerTree} from './parameters.js';
import {type Route, route, routerLogits, routeTo} from './router.js';

/** The inner experts of a layer as one flat set of G·e, of which a token uses K·k. */
export function flatLayout(
  {experts, topK}: MoeLayout,
  inner: InnerLayout,
): Pick<MoeLayout, 'experts' | 'topK' | 'expertWidth'> {
  return {experts: experts * inner.experts, topK: topK * inner.topK, expertWidth: inner.expertWidth};
}

/** Stacked [G, e, ...] as [G·e, ...]. */
export function flatExperts({gate, up, down}: GluTree<Weight>): GluTree<Weight> {
  const flat = (weight: Weight): Weight =>
    mapWeight(weight, (w) => {
      const [G = 0, e = 0, ...matrix] = w.shape;
      return tf.reshape(w, [G * e, ...matrix]);
    });
  return {gate: flat(gate), up: flat(up), down: flat(down)};
}

/** How the chosen of an expert weigh: one, or their softmax score among all of that expert. */
function innerRouting(weight: Routing['weight']): Routing {
  return weight === 'score' ? SOFTMAX_ROUTING : {...SOFTMAX_ROUTING, order: 'topk-then-score', weight};
}

/**
 * Chooses k experts inside each of a token's K, over the flat set of G·e: [T, K·k].
 *
 * A chosen one weighs what its router gives times the weight of the expert that it is in.
 * @param activity_TN what the oracle chooses by, [T, G·e]; null for the router.
 */
export function routeInside(
  x_TD: tf.Tensor2D,
  {router, routerUp}: InnerTree<Weight>,
  {topK: k, weight}: InnerLayout,
  {expert_TK, weight_TK}: Pick<Route, 'expert_TK' | 'weight_TK'>,
  activity_TN: tf.Tensor2D | null,
): Pick<Route, 'expert_TK' | 'weight_TK'> {
  const [T, K] = expert_TK.shape;
  const e = solid(router).shape[2] ?? 0;
  const ofChosen = (x_TN: tf.Tensor2D): tf.Tensor2D => insideChosen(x_TN, expert_TK, e);
  const logit_Pe = ofChosen(routerLogits(x_TD, {router: wide(router), routerUp: wide(routerUp), routerOut: null}));
  const routing = innerRouting(weight);
  const inside = activity_TN
    ? routeTo(topIndices(ofChosen(activity_TN), k), logit_Pe, routing)
    : route(logit_Pe, null, k, routing);
  const flat_TK = untaped(() => {
    const first_P1: tf.Tensor = tf.reshape(tf.mul(expert_TK, tf.scalar(e, 'int32')), [T * K, 1]);
    return tf.reshape(tf.add(first_P1, inside.expert_TK), [T, K * k]) as tf.Tensor2D;
  });
  const weight_Pk = tf.mul(tf.reshape(weight_TK, [T * K, 1]), inside.weight_TK);
  return {expert_TK: flat_TK, weight_TK: tf.reshape(weight_Pk, [T, K * k])};
}

/** Routers [G, D, e] side by side: [D, G·e]. */
function wide(router: Weight): tf.Tensor2D {
  const router_GDe = solid(router, EXACT_MATRIX);
  const [G, D, e] = router_GDe.shape as [number, number, number];
  return tf.reshape(tf.transpose(router_GDe, [1, 0, 2]), [D, G * e]);
}

/** Of [T, G·e] the columns of each token's chosen experts, a row for each: [T·K, e]. */
function insideChosen(x_TN: tf.Tensor2D, expert_TK: tf.Tensor2D, e: number): tf.Tensor2D {
  const [T, K] = expert_TK.shape;
  return tf.reshape(pickBlocks(tf.reshape(x_TN, [T, -1, e]), expert_TK), [T * K, e]);
}
