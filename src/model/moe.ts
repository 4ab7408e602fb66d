import * as tf from '@tensorflow/tfjs';
import {combine, dispatch, expertSlots} from '../op/experts.js';
import {matMul} from '../op/mat-mul.js';
import {swiglu} from '../op/swiglu.js';
import {untaped} from '../op/untaped.js';
import type {FfnLayout, Routing} from './architecture.js';
import {expertRows, roomyRows} from './capacity.js';
import {glu} from './glu.js';
import type {FfnTree, GluTree} from './parameters.js';
import {type Route, route} from './router.js';

type MoeLayout = Extract<FfnLayout, {kind: 'moe'}>;
type MoeTree<T> = Extract<FfnTree<T>, {kind: 'moe'}>;

/** What a layer's router did, for balance losses, logs and the overflow check. */
export interface RouterTrace {
  readonly logit_TE: tf.Tensor2D;
  readonly score_TE: tf.Tensor2D;
  /** Pairs that wanted each expert, int32 [E]. */
  readonly load_E: tf.Tensor1D;
  /** Rows each expert had room for. */
  readonly capacity: number;
}

/** Room for the rows of experts. */
export interface Room {
  /** In even shares: see {@link CAPACITY_BUCKETS}. */
  readonly capacityFactor: number;
  /** Whether rows beyond it are meant to be dropped; else the room may be larger where that costs nothing. */
  readonly dropsRows?: boolean;
}

/** A mixture-of-experts layer: `shared(x) + Σ_k weight_k · expert_k(x)`; [T, D] → [T, D]. */
export function moe(
  x_TD: tf.Tensor2D,
  params: MoeTree<tf.Tensor>,
  layout: MoeLayout,
  routing: Routing,
  {capacityFactor, dropsRows = false}: Room,
): {y_TD: tf.Tensor2D; router: RouterTrace} {
  const T = x_TD.shape[0];
  const logit_TE = matMul(x_TD, params.router as tf.Tensor2D);
  const chosen = route(logit_TE, params.bias as tf.Tensor1D | null, layout.topK, routing);
  const rows = (dropsRows ? roomyRows : expertRows)(capacityFactor, T, layout);
  const {y_TD, load_E} =
    rows === 'all' ? everyToken(x_TD, params.experts, chosen) : gatheredTokens(x_TD, params.experts, chosen, rows);
  return {
    y_TD: params.shared ? tf.add(y_TD, glu(x_TD, params.shared)) : y_TD,
    router: {logit_TE, score_TE: chosen.score_TE, load_E, capacity: rows === 'all' ? T : rows},
  };
}

/** Each expert computes the rows sent to it: gather, batched GLU, gather back. */
function gatheredTokens(x_TD: tf.Tensor2D, experts: GluTree<tf.Tensor>, {expert_TK, weight_TK}: Route, C: number) {
  const [E, D] = experts.gate.shape as [number, number];
  const slots = expertSlots(expert_TK, E, C);
  const x_ECD = tf.reshape(dispatch(x_TD, slots), [E, C, D]);
  const h_ECF = swiglu(matMul(x_ECD, experts.gate), matMul(x_ECD, experts.up));
  const y_RD = tf.reshape(matMul(h_ECF, experts.down), [E * C, D]) as tf.Tensor2D;
  return {y_TD: combine(y_RD, weight_TK, slots), load_E: slots.load_E};
}

/** Every expert computes every token, weighted by zero where it was not chosen: exact, and three plain matmuls. */
function everyToken(x_TD: tf.Tensor2D, experts: GluTree<tf.Tensor>, {expert_TK, weight_TK}: Route) {
  const [E, D, F] = experts.gate.shape as [number, number, number];
  const T = x_TD.shape[0];
  const wide = (w_EDF: tf.Tensor): tf.Tensor2D => tf.reshape(tf.transpose(w_EDF, [1, 0, 2]), [D, E * F]);
  const h_TEF = tf.reshape(swiglu(matMul(x_TD, wide(experts.gate)), matMul(x_TD, wide(experts.up))), [T, E, F]);
  const chosen_TKE = untaped(() => tf.oneHot(expert_TK, E).toFloat());
  const weight_TE = tf.sum(tf.mul(tf.expandDims(weight_TK, -1), chosen_TKE), 1);
  const weighted = tf.reshape(tf.mul(h_TEF, tf.expandDims(weight_TE, -1)), [T, E * F]) as tf.Tensor2D;
  const y_TD = matMul(weighted, tf.reshape(experts.down, [E * F, D]) as tf.Tensor2D);
  const load_E = untaped(() => tf.cast(tf.sum(chosen_TKE, [0, 1]), 'int32')) as tf.Tensor1D;
  return {y_TD, load_E};
}
