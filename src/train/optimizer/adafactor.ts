import * as tf from '../../engine/tfjs.js';
import type {Update} from './update.js';

/** Adafactor's constants (Shazeer and Stern 2018, arXiv 1804.04235), named as in PyTorch. */
export interface AdafactorOptions {
  readonly kind: 'adafactor';
  /** The mean of squares decays by 1 − t^this. */
  readonly beta2Decay: number;
  /** Least size of an update relative to its parameter, ε₂ of the paper. */
  readonly eps: number;
  /** Root mean square that an update is brought down to, d of the paper. */
  readonly threshold: number;
  readonly weightDecay: number;
}

/** ε₁: float32's machine epsilon, PyTorch's default. */
const EPSILON = 2 ** -23;

/** `t^beta2Decay` and `1/√t` of step t, counted from 1. */
export function adafactorFigures({beta2Decay}: AdafactorOptions, t: number): [number, number] {
  return [t ** beta2Decay, 1 / Math.sqrt(t)];
}

/** Shapes of the state: a mean of squares for each row and each column of a matrix, or for each number of a vector. */
export function adafactorSlots(shape: readonly number[]): Readonly<Record<string, readonly number[]>> {
  if (shape.length < 2) return {square: shape};
  const [stack, [rows = 0, columns = 0]] = [shape.slice(0, -2), shape.slice(-2)];
  return {rowSquare: [...stack, rows, 1], columnSquare: [...stack, 1, columns]};
}

/**
 * One Adafactor update as `torch.optim.Adafactor` has it, without a first moment; each matrix of a stack on its own:
 * `p ← p − max(ε₂, rms(p))·min(lr, 1/√t)·û / max(1, rms(û)/d)` with `û = g/√v` and v from means of rows and columns.
 */
export function adafactor(
  {value, slots, gradient, learningRate, figures, isSafe, decays}: Update,
  {eps, threshold, weightDecay}: AdafactorOptions,
): {value: tf.Tensor; slots: tf.Tensor[]} {
  const [share, root] = figures as [tf.Tensor, tf.Tensor];
  const axes = value.shape.length < 2 ? [0] : [-2, -1];
  const rms = (x: tf.Tensor): tf.Tensor => tf.sqrt(tf.mean(tf.square(x), axes, true));
  const moved = (slot: tf.Tensor, square: tf.Tensor): tf.Tensor =>
    tf.where(isSafe, tf.add(slot, tf.mul(tf.sub(square, slot), share)), slot);
  const squares = tf.square(gradient);
  const means = axes.length === 1 ? [squares] : [tf.mean(squares, -1, true), tf.mean(squares, -2, true)];
  const after = slots.map((slot, i) => moved(slot, means[i] as tf.Tensor));
  const [rows, columns] = after as [tf.Tensor, tf.Tensor | undefined];
  const variance = columns ? tf.div(tf.mul(rows, columns), tf.maximum(tf.mean(rows, -2, true), EPSILON)) : rows;
  const update = tf.mul(gradient, tf.rsqrt(tf.maximum(variance, EPSILON ** 2)));
  const size = tf.mul(tf.maximum(rms(value), eps), tf.minimum(learningRate, root));
  const step = tf.mul(update, tf.div(size, tf.maximum(tf.div(rms(update), threshold), 1)));
  const decay = decays ? weightDecay : 0;
  const decayed = decay === 0 ? value : tf.mul(value, tf.sub(1, tf.mul(learningRate, decay)));
  return {value: tf.where(isSafe, tf.sub(decayed, step), value), slots: after};
}
