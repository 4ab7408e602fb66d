import * as tf from '../engine/tfjs.js';

/**
 * `x / sqrt(mean(x²) + eps) · weight` over the last axis (Zhang and Sennrich 2019).
 *
 * @param x_TD float32 [T, D]; `weight_D` [D].
 */
export function rmsNorm(x_TD: tf.Tensor2D, weight_D: tf.Tensor1D, eps: number): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [x, weight, save] = args as [tf.Tensor2D, tf.Tensor1D, tf.GradSaveFunc];
    save([x, weight]);
    return {
      value: tf.mul(normalise(x, eps).unit, weight),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [input, scale] = saved as [tf.Tensor2D, tf.Tensor1D];
        return gradients(dy, input, scale, eps);
      },
    };
  })(x_TD, weight_D) as tf.Tensor2D;
}

function normalise(x: tf.Tensor, eps: number): {unit: tf.Tensor; inverse: tf.Tensor} {
  const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(x), -1, true), eps));
  return {unit: tf.mul(x, inverse), inverse};
}

function gradients(dy: tf.Tensor, x: tf.Tensor, weight: tf.Tensor, eps: number): tf.Tensor[] {
  const {unit, inverse} = normalise(x, eps);
  const scaled = tf.mul(dy, weight);
  const dx = tf.mul(tf.sub(scaled, tf.mul(unit, tf.mean(tf.mul(scaled, unit), -1, true))), inverse);
  return [dx, tf.sum(tf.mul(dy, unit), 0)];
}
