import * as tf from '@tensorflow/tfjs';
import type {Role} from '../model/parameters.js';

/** AdamW's constants. */
export interface AdamWOptions {
  readonly betas: readonly [number, number];
  readonly eps: number;
  /** Decoupled decay, on matrices only. */
  readonly weightDecay: number;
}

/** A parameter with its two moments. */
export interface Moments {
  readonly value: tf.Tensor;
  readonly first: tf.Tensor;
  readonly second: tf.Tensor;
}

/** Numbers that change every step, computed on the host in float64. */
export interface StepRates {
  readonly learningRate: number;
  /** `1 − β1^t` */
  readonly firstCorrection: number;
  /** `√(1 − β2^t)` */
  readonly secondCorrection: number;
}

/** Rates of step `t`, counted from 1. */
export function stepRates(learningRate: number, t: number, [beta1, beta2]: AdamWOptions['betas']): StepRates {
  return {learningRate, firstCorrection: 1 - beta1 ** t, secondCorrection: Math.sqrt(1 - beta2 ** t)};
}

/** Whether a parameter decays: matrices and embeddings do, norms and biases do not. */
export function decays(role: Role): boolean {
  return role !== 'norm' && role !== 'bias' && role !== 'attention-bias' && role !== 'expert-bias';
}

/** What is the same for every parameter of a step, as tensors inside the compiled function. */
export interface UpdateTensors {
  readonly learningRate: tf.Tensor;
  readonly firstCorrection: tf.Tensor;
  readonly secondCorrection: tf.Tensor;
  /** Whether the update happens at all; false leaves parameter and moments as they are. */
  readonly isSafe: tf.Tensor;
}

/**
 * One AdamW update (Loshchilov and Hutter 2019), in the order of PyTorch's:
 * `p ← p·(1 − lr·wd)`, then `p ← p − lr/(1 − β1^t) · m / (√v/√(1 − β2^t) + eps)`.
 */
export function adamW(
  {value, first, second}: Moments,
  gradient: tf.Tensor,
  {learningRate, firstCorrection, secondCorrection, isSafe}: UpdateTensors,
  {betas: [beta1, beta2], eps}: AdamWOptions,
  weightDecay: number,
): Moments {
  // The parameter is updated from the moments as they are stored, choice included: from what comes before it XLA would
  // compute both again for the parameter, and keep a copy of each old moment since they are overwritten in place.
  const m = tf.where(isSafe, tf.add(tf.mul(first, beta1), tf.mul(gradient, 1 - beta1)), first);
  const v = tf.where(isSafe, tf.add(tf.mul(second, beta2), tf.mul(tf.square(gradient), 1 - beta2)), second);
  const decayed = weightDecay === 0 ? value : tf.mul(value, tf.sub(1, tf.mul(learningRate, weightDecay)));
  const denominator = tf.add(tf.div(tf.sqrt(v), secondCorrection), eps);
  const step = tf.mul(tf.div(learningRate, firstCorrection), tf.div(m, denominator));
  return {value: tf.where(isSafe, tf.sub(decayed, step), value), first: m, second: v};
}

/** `√Σ‖g‖²` over all gradients. */
export function globalNorm(gradients: readonly tf.Tensor[]): tf.Scalar {
  return tf.sqrt(tf.addN(gradients.map((gradient) => tf.sum(tf.square(gradient)) as tf.Scalar)));
}

/** Factor that brings the norm down to `limit`: `min(1, limit / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`. */
export function clipFactor(norm: tf.Scalar, limit: number): tf.Scalar {
  return tf.minimum(1, tf.div(limit, tf.add(norm, 1e-6)));
}
