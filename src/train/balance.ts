// What keeps all experts of a layer in use. Shapes: B sequences of S tokens, T = B·S, E experts, K of them a token.

import * as tf from '../engine/tfjs.js';
import type {Architecture} from '../model/architecture.js';
import type {RouterTrace} from '../model/moe.js';
import {oneHot} from '../op/one-hot.js';
import {untaped} from '../op/untaped.js';
import {ConfigError} from '../util/errors.js';
import type {BalanceOptions} from './balance-options.js';

/** What is balanced of a layer: its own router; those inside its experts are left as they are. */
export type Balanced = Omit<RouterTrace, 'innerLoad_N'>;

/** The auxiliary terms of a step, means over the MoE layers, unweighted; zero for a dense model. */
export interface RouterLosses {
  readonly balance: tf.Scalar;
  readonly z: tf.Scalar;
}

/** What a balance loss looks at besides the routers of a pass. */
export interface BalanceContext {
  /** B, rows of text in the pass. */
  readonly sequences: number;
  /** Rows that each expert got in earlier passes of the step, float32 [E] a layer; empty if there were none. */
  readonly earlier: readonly tf.Tensor1D[];
}

/**
 * The balance loss of the routers, and the z-loss `mean(logsumexp(logits)²)` (ST-MoE eq. 5).
 *
 * @throws Error if pooled layers differ in their number of experts.
 */
export function routerLosses(
  routers: readonly Balanced[],
  options: BalanceOptions,
  {sequences, earlier}: BalanceContext,
): RouterLosses {
  if (routers.length === 0) return {balance: tf.scalar(0), z: tf.scalar(0)};
  return {
    balance: balanceOf(routers, options, {sequences, earlier}),
    z: meanOf(routers.map(({logit_TE}) => tf.mean(tf.square(tf.logSumExp(logit_TE, -1))) as tf.Scalar)),
  };
}

/** @throws ConfigError if layers are to be balanced together that differ in their number of experts. */
export function refuseUnevenPool({ffn}: Architecture, {kind}: BalanceOptions): void {
  if (kind !== 'pooled') return;
  const layers = ffn.flatMap((layout, l) => (layout.kind === 'moe' ? [{l, experts: layout.experts}] : []));
  const [first] = layers;
  const other = layers.find(({experts}) => experts !== first?.experts);
  if (!first || !other) return;
  throw new ConfigError(
    `train.balance.kind: pooled takes all layers together, which must have equally many experts; layer ${first.l} has ${first.experts}, layer ${other.l} has ${other.experts}.`,
    {hint: 'Set train.balance.kind to aux, which balances each layer by itself.'},
  );
}

/** The weight of the balance loss. */
export function balanceWeight(options: BalanceOptions): number {
  return options.kind === 'none' ? 0 : options.weight;
}

function balanceOf(
  routers: readonly Balanced[],
  options: BalanceOptions,
  {sequences, earlier}: BalanceContext,
): tf.Scalar {
  switch (options.kind) {
    case 'pooled':
      return pooledLoss(routers);
    case 'cv2':
      return meanOf(routers.map(variationLoss));
    case 'bias':
      return meanOf(routers.map((router) => sequenceLoss(router, sequences)));
    case 'aux':
      if (options.scope === 'sequence') return meanOf(routers.map((router) => sequenceLoss(router, sequences)));
      return meanOf(routers.map((router, i) => switchLoss(router, (options.scope === 'batch' && earlier[i]) || null)));
    case 'none':
      return meanOf(routers.map((router) => switchLoss(router, null)));
  }
}

/** `E·Σ_e f_e·P_e` (Switch Transformer eq. 4): f_e the share of routed pairs that went to e, P_e its mean probability. */
function switchLoss({score_TE, load_E}: Balanced, earlier_E: tf.Tensor1D | null): tf.Scalar {
  const now_E = tf.cast(load_E, 'float32');
  const count_E: tf.Tensor = earlier_E ? tf.add(now_E, earlier_E) : now_E;
  const share_E = tf.div(count_E, tf.sum(count_E));
  return tf.mul(tf.sum(tf.mul(share_E, tf.mean(probabilities(score_TE), 0))), load_E.shape[0]);
}

/** The same in each row of text, then the mean over rows (DeepSeek-V3 eq. 17). */
function sequenceLoss({score_TE, expert_TK}: Balanced, B: number): tf.Scalar {
  const [E, K] = [score_TE.shape[1], expert_TK.shape[1]];
  const share_BE = untaped(() => tf.mean(tf.reshape(tf.sum(oneHot(expert_TK, E), 1), [B, -1, E]), 1));
  const probability_BE = tf.mean(tf.reshape(probabilities(score_TE), [B, -1, E]), 1);
  return tf.mul(tf.mean(tf.sum(tf.mul(share_BE, probability_BE), 1)), E / K);
}

/** `load_balancing_loss_func` of transformers: `E·Σ_k,e f_ke·P_e` over the tokens of all layers. */
function pooledLoss(routers: readonly Balanced[]): tf.Scalar {
  const [E, ...others] = routers.map(({score_TE}) => score_TE.shape[1]);
  if (E === undefined || others.some((count) => count !== E)) {
    throw new Error('a pooled balance loss needs layers of equally many experts');
  }
  const share_E = untaped(() => meanTensor(routers.map(({expert_TK}) => tf.mean(tf.sum(oneHot(expert_TK, E), 1), 0))));
  const probability_E = meanTensor(routers.map(({score_TE}) => tf.mean(probabilities(score_TE), 0)));
  return tf.mul(tf.sum(tf.mul(share_E, probability_E)), E);
}

/** `CV²(importance) + CV²(load)` (Shazeer et al., eq. 7 and 11): summed weights, and summed chances where there is noise. */
function variationLoss({expert_TK, weight_TK, score_TE, chance_TE}: Balanced): tf.Scalar {
  const E = score_TE.shape[1];
  const chosen_TKE = untaped(() => oneHot(expert_TK, E));
  const importance_E = tf.sum(tf.mul(tf.expandDims(weight_TK, -1), chosen_TKE), [0, 1]);
  const importance = squaredVariation(importance_E);
  return chance_TE ? tf.add(importance, squaredVariation(tf.sum(chance_TE, 0))) : importance;
}

/** The squared coefficient of variation, the variance over E − 1 as in torch. */
function squaredVariation(x_E: tf.Tensor): tf.Scalar {
  const mean = tf.mean(x_E);
  const variance = tf.div(tf.sum(tf.square(tf.sub(x_E, mean))), Math.max(1, x_E.size - 1));
  return tf.div(variance, tf.add(tf.square(mean), 1e-10));
}

/** Scores as shares of their sum: softmax scores are that already, sigmoid ones become so. */
function probabilities(score_TE: tf.Tensor2D): tf.Tensor2D {
  return tf.div(score_TE, tf.sum(score_TE, -1, true));
}

function meanTensor(tensors: readonly tf.Tensor[]): tf.Tensor {
  return tf.div(tf.addN([...tensors]), tensors.length);
}

function meanOf(terms: readonly tf.Scalar[]): tf.Scalar {
  return meanTensor(terms) as tf.Scalar;
}
