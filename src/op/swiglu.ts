import * as tf from '../engine/tfjs.js';

/** `silu(gate) ⊙ up` (Shazeer 2020), any equal shapes; only the two inputs are kept for the gradient. */
export function swiglu<T extends tf.Tensor>(gate: T, up: T): T {
  return tf.customGrad((...args) => {
    const [a, b, save] = args as [tf.Tensor, tf.Tensor, tf.GradSaveFunc];
    save([a, b]);
    return {
      value: tf.mul(silu(a), b),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [x, y] = saved as [tf.Tensor, tf.Tensor];
        return swigluGradients(dy, x, y);
      },
    };
  })(gate, up) as T;
}

/** `x · sigmoid(x)`. */
export function silu<T extends tf.Tensor>(x: T): T {
  return tf.mul(x, tf.sigmoid(x));
}

/** Gradients of gate and up; silu'(x) = s·(1 + x·(1 − s)) with s = sigmoid(x). */
export function swigluGradients(dy: tf.Tensor, gate: tf.Tensor, up: tf.Tensor): tf.Tensor[] {
  const s = tf.sigmoid(gate);
  const slope = tf.mul(s, tf.add(tf.mul(gate, tf.sub(1, s)), 1));
  return [tf.mul(tf.mul(dy, up), slope), tf.mul(dy, tf.mul(gate, s))];
}
