import * as tf from '../engine/tfjs.js';
import {after} from './after.js';
import {swiglu, swigluGradients} from './swiglu.js';

/** How rows are multiplied by a weight: one matrix for all, or one for each expert. */
export interface Product<X extends tf.Tensor, W extends tf.Tensor> {
  /** What it needs besides both factors; no gradient. */
  readonly constants: readonly tf.Tensor[];
  multiply(x: X, w: W, constants: readonly tf.Tensor[]): X;
  /** Gradients of both factors. */
  gradients(dy: X, x: X, w: W, constants: readonly tf.Tensor[]): [X, W];
}

/** The product of rows and a weight. */
export function multiplied<X extends tf.Tensor, W extends tf.Tensor>(x: X, w: W, product: Product<X, W>): X {
  return tf.customGrad((...args) => {
    const [rows, weight, save] = args as [X, W, tf.GradSaveFunc];
    save([rows, weight, ...product.constants]);
    return {
      value: product.multiply(rows, weight, product.constants),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [left, right, ...constants] = saved as [X, W, ...tf.Tensor[]];
        return product.gradients(dy as X, left, right, constants);
      },
    };
  })(x, w) as X;
}

/**
 * The second half of a GLU, `(silu(gate) ⊙ up) · w`, which keeps only its inputs for the gradient.
 *
 * The product in brackets is computed again there: it is as wide as each input, and cheap beside a matmul (as in Liger,
 * Hsu et al. 2024).
 */
export function swigluMultiplied<X extends tf.Tensor, W extends tf.Tensor>(
  gate: X,
  up: X,
  w: W,
  product: Product<X, W>,
): X {
  return tf.customGrad((...args) => {
    const [a, b, weight, save] = args as [X, X, W, tf.GradSaveFunc];
    save([a, b, weight, ...product.constants]);
    return {
      value: product.multiply(swiglu(a, b), weight, product.constants),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [x, y, right, ...constants] = saved as [X, X, W, ...tf.Tensor[]];
        const [gateAgain, upAgain] = after(dy, [x, y] as const);
        const [dh, dw] = product.gradients(dy as X, swiglu(gateAgain, upAgain), right, constants);
        return [...swigluGradients(dh, gateAgain, upAgain), dw];
      },
    };
  })(gate, up, w) as X;
}
