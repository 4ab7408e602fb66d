import * as tf from '../../engine/tfjs.js';
import type {Update} from './update.js';

/** AdamW's constants. */
export interface AdamWOptions {
  readonly kind: 'adamw';
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** Decoupled decay, on matrices only. */
  readonly weightDecay: number;
}

/** `1 − β1^t` and `√(1 − β2^t)` of step t, counted from 1: what corrects the start of both means. */
export function adamCorrections([beta1, beta2]: AdamWOptions['betas'], t: number): [number, number] {
  return [1 - beta1 ** t, Math.sqrt(1 - beta2 ** t)];
}

/**
 * One AdamW update (Loshchilov and Hutter 2019), in the order of PyTorch's:
 * `p ← p·(1 − lr·wd)`, then `p ← p − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + eps)`.
 */
export function adamW(
  {value, slots: [first, second], gradient, learningRate, figures, isSafe, decays}: Update,
  {betas: [beta1, beta2], eps, weightDecay}: AdamWOptions,
): {value: tf.Tensor; slots: tf.Tensor[]} {
  if (!first || !second) throw new Error('AdamW needs two moments');
  const [firstCorrection, secondCorrection] = figures as [tf.Tensor, tf.Tensor];
  // The parameter is updated from the moments as they are stored, choice included: from what comes before it XLA would
  // compute both again for the parameter, and keep a copy of each old moment since they are overwritten in place.
  const m = tf.where(isSafe, tf.add(tf.mul(first, beta1), tf.mul(gradient, 1 - beta1)), first);
  const v = tf.where(isSafe, tf.add(tf.mul(second, beta2), tf.mul(tf.square(gradient), 1 - beta2)), second);
  const decay = decays ? weightDecay : 0;
  const decayed = decay === 0 ? value : tf.mul(value, tf.sub(1, tf.mul(learningRate, decay)));
  const denominator = tf.add(tf.div(tf.sqrt(v), secondCorrection), eps);
  const step = tf.mul(tf.div(learningRate, firstCorrection), tf.div(m, denominator));
  return {value: tf.where(isSafe, tf.sub(decayed, step), value), slots: [m, v]};
}
