import * as tf from '@tensorflow/tfjs';
import {addExpertBias, combine, dispatch, type ExpertRoom, expertProduct, expertSlots} from '../op/experts.js';
import {matMul} from '../op/mat-mul.js';
import {multiplied, swigluMultiplied} from '../op/product.js';
import {swiglu} from '../op/swiglu.js';
import {topIndices} from '../op/top-k.js';
import {untaped} from '../op/untaped.js';
import type {FfnLayout, Routing} from './architecture.js';
import {type Capacity, expertRoom} from './capacity.js';
import {glu} from './glu.js';
import type {FfnTree, GluTree} from './parameters.js';
import {type Route, route, routerLogits, routeTo} from './router.js';

type MoeLayout = Extract<FfnLayout, {kind: 'moe'}>;
type MoeTree<T> = Extract<FfnTree<T>, {kind: 'moe'}>;

/** What a layer's router did, for balance losses and logs. */
export interface RouterTrace {
  readonly logit_TE: tf.Tensor2D;
  readonly score_TE: tf.Tensor2D;
  /** Pairs that wanted each expert, int32 [E]. */
  readonly load_E: tf.Tensor1D;
}

/**
 * What chooses a token's experts: the router, or the oracle, which looks at what every expert would do and takes those of
 * the largest Σ|h| over their neurons (ground-truth selection of MoEfication, arXiv 2110.01786). A yardstick for routers: the
 * experts it chooses weigh what the model's router gives them, or one where that is its rule.
 */
export type Chooser = 'router' | 'oracle';

/** A mixture-of-experts layer: `shared(x) + Σ_k weight_k · expert_k(x)`; [T, D] → [T, D]. */
export function moe(
  x_TD: tf.Tensor2D,
  params: MoeTree<tf.Tensor>,
  layout: MoeLayout,
  routing: Routing,
  capacity: Capacity,
  chooser: Chooser = 'router',
): {y_TD: tf.Tensor2D; router: RouterTrace} {
  const T = x_TD.shape[0];
  const logit_TE = routerLogits(x_TD, params);
  const chosen =
    chooser === 'oracle'
      ? routeTo(topIndices(expertActivity(x_TD, params.experts), layout.topK), logit_TE, routing)
      : route(logit_TE, params.bias as tf.Tensor1D | null, layout.topK, routing);
  const room = expertRoom(capacity, T, layout);
  const {y_TD, load_E} = room === 'all' ? everyToken(x_TD, params, chosen) : gatheredTokens(x_TD, params, chosen, room);
  return {
    y_TD: params.shared ? tf.add(y_TD, glu(x_TD, params.shared)) : y_TD,
    router: {logit_TE, score_TE: chosen.score_TE, load_E},
  };
}

/** Each expert computes the rows sent to it: gather, GLU by expert, gather back. */
function gatheredTokens(
  x_TD: tf.Tensor2D,
  {experts: {gate, up, down}, expertBias}: MoeTree<tf.Tensor>,
  {expert_TK, weight_TK}: Route,
  room: ExpertRoom,
) {
  const slots = expertSlots(expert_TK, gate.shape[0] ?? 0, room);
  const x_RD = dispatch(x_TD, slots);
  const product = expertProduct(slots);
  const byExpert = (w: tf.Tensor): tf.Tensor2D => multiplied(x_RD, w as tf.Tensor3D, product);
  const y_RD = swigluMultiplied(byExpert(gate), byExpert(up), down as tf.Tensor3D, product);
  const biased_RD = expertBias ? addExpertBias(y_RD, expertBias as tf.Tensor2D, slots) : y_RD;
  return {y_TD: combine(biased_RD, weight_TK, slots), load_E: slots.load_E};
}

/** Every expert computes every token, weighted by zero where it was not chosen: exact, and three plain matmuls. */
function everyToken(x_TD: tf.Tensor2D, {experts, expertBias}: MoeTree<tf.Tensor>, {expert_TK, weight_TK}: Route) {
  const [E, D, F] = experts.gate.shape as [number, number, number];
  const T = x_TD.shape[0];
  const h_TEF = hiddenOfAll(x_TD, experts);
  const chosen_TKE = untaped(() => tf.oneHot(expert_TK, E).toFloat());
  const weight_TE: tf.Tensor2D = tf.sum(tf.mul(tf.expandDims(weight_TK, -1), chosen_TKE), 1);
  const weighted = tf.reshape(tf.mul(h_TEF, tf.expandDims(weight_TE, -1)), [T, E * F]) as tf.Tensor2D;
  const y_TD = matMul(weighted, tf.reshape(experts.down, [E * F, D]) as tf.Tensor2D);
  const load_E = untaped(() => tf.cast(tf.sum(chosen_TKE, [0, 1]), 'int32')) as tf.Tensor1D;
  if (!expertBias) return {y_TD, load_E};
  return {y_TD: tf.add(y_TD, matMul(weight_TE, expertBias as tf.Tensor2D)) as tf.Tensor2D, load_E};
}

/** Σ|h| over the neurons of each expert, [T, E]. */
function expertActivity(x_TD: tf.Tensor2D, experts: GluTree<tf.Tensor>): tf.Tensor2D {
  return tf.sum(tf.abs(hiddenOfAll(x_TD, experts)), 2);
}

/** h of every neuron of every expert, [T, E, F]. */
function hiddenOfAll(x_TD: tf.Tensor2D, {gate, up}: GluTree<tf.Tensor>): tf.Tensor3D {
  const [E, D, F] = gate.shape as [number, number, number];
  const wide = (w_EDF: tf.Tensor): tf.Tensor2D => tf.reshape(tf.transpose(w_EDF, [1, 0, 2]), [D, E * F]);
  return tf.reshape(swiglu(matMul(x_TD, wide(gate)), matMul(x_TD, wide(up))), [x_TD.shape[0], E, F]);
}
