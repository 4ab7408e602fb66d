import type * as tf from '@tensorflow/tfjs';
import {runKernel} from '../engine/kernels.js';

/**
 * Lower L with `L·Lᵀ = a`; [N, N], not differentiable.
 *
 * @param a_NN float32, symmetric positive definite; the arithmetic is float64.
 */
export function cholesky(a_NN: tf.Tensor2D): tf.Tensor2D {
  return runKernel('DowncycleCholesky', {a: a_NN}, {}) as tf.Tensor2D;
}

/**
 * x with `a·x = b`; [N, M], not differentiable.
 *
 * @param a_NN float32, symmetric positive definite; `b_NM` float32. The arithmetic is float64.
 */
export function choleskySolve(a_NN: tf.Tensor2D, b_NM: tf.Tensor2D): tf.Tensor2D {
  return runKernel('DowncycleCholeskySolve', {a: a_NN, b: b_NM}, {}) as tf.Tensor2D;
}
