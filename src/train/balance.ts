import * as tf from '@tensorflow/tfjs';
import type {RouterTrace} from '../model/moe.js';

/** What is balanced of a layer: its own router; those inside its experts are left as they are. */
type Balanced = Omit<RouterTrace, 'innerLoad_N'>;

/** The two auxiliary terms of a step, each a mean over the MoE layers; zero for a dense model. */
export interface RouterLosses {
  readonly balance: tf.Scalar;
  readonly z: tf.Scalar;
}

/**
 * Load balance per layer, `E·Σ_e f_e·P_e` (Switch Transformer eq. 4): f_e the share of routed pairs that went to e,
 * P_e its mean probability; 1 when even. The z-loss is `mean(logsumexp(logits)²)` (ST-MoE eq. 5).
 */
export function routerLosses(routers: readonly Balanced[], topK: readonly number[]): RouterLosses {
  if (routers.length === 0) return {balance: tf.scalar(0), z: tf.scalar(0)};
  const terms = routers.map((router, i) => ({
    balance: balanceLoss(router, topK[i] ?? 1),
    z: tf.mean(tf.square(tf.logSumExp(router.logit_TE, -1))) as tf.Scalar,
  }));
  return {balance: meanOf(terms.map(({balance}) => balance)), z: meanOf(terms.map(({z}) => z))};
}

function balanceLoss({score_TE, load_E}: Balanced, topK: number): tf.Scalar {
  const [T, E] = score_TE.shape;
  const share_E = tf.div(tf.cast(load_E, 'float32'), T * topK);
  const probability_E = tf.mean(tf.div(score_TE, tf.sum(score_TE, -1, true)), 0);
  return tf.mul(tf.sum(tf.mul(share_E, probability_E)), E);
}

function meanOf(terms: readonly tf.Scalar[]): tf.Scalar {
  return tf.div(tf.addN([...terms]), terms.length);
}
