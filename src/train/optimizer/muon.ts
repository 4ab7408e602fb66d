import {withPrecision} from '../../engine/precision.js';
import * as tf from '../../engine/tfjs.js';
import {type MatMulOptions, matMul} from '../../op/mat-mul.js';
import type {AdamWOptions} from './adamw.js';
import type {Update} from './update.js';

/** Muon's constants (Jordan et al. 2024), named as in PyTorch; what is no matrix of a layer is moved by AdamW. */
export interface MuonOptions {
  readonly kind: 'muon';
  readonly momentum: number;
  readonly nesterov: boolean;
  /** Newton-Schulz iterations. */
  readonly iterations: number;
  readonly weightDecay: number;
  readonly adamw: AdamWOptions;
}

/** Coefficients of the quintic iteration: they grow small singular values fastest, and end within 0.7 and 1.2. */
const [A, B, C] = [3.4445, -4.775, 2.0315];
const EPSILON = 1e-7;
/** An orthogonal [D, F] update has the root mean square 1/√max(D, F); AdamW's is about this (arXiv 2502.16982, eq. 4). */
const ADAMW_RMS = 0.2;

/**
 * One Muon update, each matrix of a stack on its own: `p ← p·(1 − lr·wd) − lr·0.2·√max(D, F)·orthogonal(m)`, so that
 * learning rate and decay of AdamW fit (`match_rms_adamw` of `torch.optim.Muon`).
 */
export function muon(
  {value, slots: [buffer], gradient, learningRate, isSafe, decays}: Update,
  {momentum, nesterov, iterations, weightDecay}: MuonOptions,
): {value: tf.Tensor; slots: tf.Tensor[]} {
  if (!buffer) throw new Error('Muon needs a momentum');
  const mixed = (a: tf.Tensor, b: tf.Tensor, share: number): tf.Tensor => tf.add(a, tf.mul(tf.sub(b, a), share));
  const m = tf.where(isSafe, mixed(buffer, gradient, 1 - momentum), buffer);
  const direction = orthogonal(nesterov ? mixed(gradient, m, momentum) : m, iterations);
  const [rows = 1, columns = 1] = value.shape.slice(-2);
  const step = tf.mul(direction, tf.mul(learningRate, ADAMW_RMS * Math.sqrt(Math.max(rows, columns))));
  const decay = decays ? weightDecay : 0;
  const decayed = decay === 0 ? value : tf.mul(value, tf.sub(1, tf.mul(learningRate, decay)));
  return {value: tf.where(isSafe, tf.sub(decayed, step), value), slots: [m]};
}

/** About U·Vᵀ of a matrix U·Σ·Vᵀ, by Newton-Schulz in float32; [..., D, F]. */
export function orthogonal(x: tf.Tensor, iterations: number): tf.Tensor {
  const [rows = 1, columns = 1] = x.shape.slice(-2);
  const isTall = rows > columns; // the product of the shorter sides is the smaller one
  const norm = tf.sqrt(tf.sum(tf.square(x), [-2, -1], true));
  let y = tf.div(x, tf.maximum(norm, EPSILON));
  const multiply = (a: tf.Tensor, b: tf.Tensor, how?: MatMulOptions): tf.Tensor =>
    withPrecision('float32', () => matMul(a, b, how));
  for (let i = 0; i < iterations; i++) {
    const gram = multiply(y, y, isTall ? {transposeA: true} : {transposeB: true});
    const inner = tf.add(tf.mul(gram, B), tf.mul(multiply(gram, gram), C));
    y = tf.add(tf.mul(y, A), isTall ? multiply(y, inner) : multiply(inner, y));
  }
  return y;
}
