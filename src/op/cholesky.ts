import {runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';
import {matMul} from './mat-mul.js';

/**
 * The lower half of a symmetric matrix [N, N]: its columns in panels of some hundred, each from the diagonal down; panel p
 * of [first column to N, its width]. Sums of products are taken of these alone, at little more than half the work.
 */
export type LowerPanels = readonly tf.Tensor2D[];

/** Columns of a panel: wide enough for fast products, narrow enough for little to be held twice. */
const PANEL = 256;

/** First column and width of each panel of a matrix [N, N]. */
export function panelColumns(N: number): {readonly first: number; readonly width: number}[] {
  return Array.from({length: Math.ceil(N / PANEL)}, (_, p) => ({
    first: p * PANEL,
    width: Math.min(PANEL, N - p * PANEL),
  }));
}

/** The lower half of a matrix; tensors of the caller's. */
export function lowerPanels(a_NN: tf.Tensor2D): LowerPanels {
  const [N] = a_NN.shape;
  return panelColumns(N).map(({first, width}) => tf.slice(a_NN, [first, first], [N - first, width]));
}

/** The lower half of `xᵀ·x`, for x [T, N]; tensors of the caller's. */
export function lowerSquare(x_TN: tf.Tensor2D): LowerPanels {
  const [T, N] = x_TN.shape;
  return tf.tidy(() =>
    panelColumns(N).map(({first, width}) => {
      const below_TM = first === 0 ? x_TN : tf.slice(x_TN, [0, first], [T, N - first]);
      const panel_TW = width === N ? x_TN : tf.slice(x_TN, [0, first], [T, width]);
      return matMul(below_TM, panel_TW, {transposeA: true});
    }),
  );
}

/**
 * Lower L with `L·Lᵀ = a`; [N, N], not differentiable.
 *
 * @param a_NN float32, symmetric positive definite; the arithmetic is float64.
 */
export function cholesky(a_NN: tf.Tensor2D): tf.Tensor2D {
  return runKernel('DowncycleCholesky', {a: a_NN}, {}) as tf.Tensor2D;
}

/**
 * x with `(a + shift·I)·x = b`; [N, M], not differentiable. Disposes a and b, each part when it has been read.
 *
 * @param a float32, of a symmetric matrix that is positive definite with the shift; `b_NM` float32. The arithmetic is float64.
 * @param shift is rounded to float32.
 */
export function choleskySolve(a: LowerPanels, b_NM: tf.Tensor2D, shift = 0): tf.Tensor2D {
  const panels = Object.fromEntries(a.map((panel, p) => [`a${p}`, panel]));
  return runKernel('DowncycleCholeskySolve', {b: b_NM, ...panels}, {shift}) as tf.Tensor2D;
}
