import {runKernel} from '../engine/kernels.js';
import {withPrecision} from '../engine/precision.js';
import * as tf from '../engine/tfjs.js';
import type {Product} from './product.js';

/** Which of the two matrices are read transposed. */
export interface MatMulOptions {
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/**
 * `op(a)·op(b)` over the last two axes; batch axes must be equal.
 *
 * float32 result; inputs are rounded to bfloat16 when the function is compiled with that precision.
 */
export function matMul<T extends tf.Tensor>(
  a: T,
  b: T,
  {transposeA = false, transposeB = false}: MatMulOptions = {},
): T {
  return tf.customGrad((...args) => {
    const [x, y, save] = args as [tf.Tensor, tf.Tensor, tf.GradSaveFunc];
    save([x, y]);
    return {
      value: multiply(x, y, transposeA, transposeB),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [left, right] = saved as [tf.Tensor, tf.Tensor];
        return gradients(dy, left, right, transposeA, transposeB);
      },
    };
  })(a, b) as T;
}

/** Rows times one matrix: [T, D]·[D, F]. */
export const MATRIX: Product<tf.Tensor2D, tf.Tensor2D> = {
  constants: [],
  multiply: (x, w) => multiply(x, w, false, false),
  gradients: (dy, x, w) => gradients(dy, x, w, false, false) as [tf.Tensor2D, tf.Tensor2D],
};

/** The same in float32 whatever precision a function is compiled with. */
export const EXACT_MATRIX: Product<tf.Tensor2D, tf.Tensor2D> = {
  constants: [],
  multiply: (...given) => withPrecision('float32', () => MATRIX.multiply(...given)),
  gradients: (...given) => withPrecision('float32', () => MATRIX.gradients(...given)),
};

/** `op(a)·op(b)` outside the tape, for use inside other operations' own gradients. */
export function multiply<T extends tf.Tensor>(a: T, b: T, transposeA: boolean, transposeB: boolean): T {
  return runKernel('DowncycleMatMul', {a, b}, {transposeA, transposeB}) as T;
}

/** d op(a) = dy·op(b)ᵀ and d op(b) = op(a)ᵀ·dy, each written so that no transpose is made. */
function gradients(dy: tf.Tensor, a: tf.Tensor, b: tf.Tensor, transposeA: boolean, transposeB: boolean): tf.Tensor[] {
  return [
    transposeA ? multiply(b, dy, transposeB, true) : multiply(dy, b, false, !transposeB),
    transposeB ? multiply(dy, a, true, transposeA) : multiply(a, dy, !transposeA, false),
  ];
}
