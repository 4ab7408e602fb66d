import * as tf from '../engine/tfjs.js';

/** `(x − mean(x)) / sqrt(var(x) + eps)` over the last axis (Ba et al. 2016), without weight or bias; float32 [T, D]. */
export function layerNorm(x_TD: tf.Tensor2D, eps: number): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [x, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([x]);
    return {
      value: normalise(x, eps).unit,
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => gradient(dy, normalise(saved[0] as tf.Tensor2D, eps)),
    };
  })(x_TD) as tf.Tensor2D;
}

interface Normalised {
  readonly unit: tf.Tensor;
  readonly inverse: tf.Tensor;
}

function normalise(x: tf.Tensor, eps: number): Normalised {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const inverse = tf.rsqrt(tf.add(tf.mean(tf.square(centred), -1, true), eps));
  return {unit: tf.mul(centred, inverse), inverse};
}

/** What is left of `dy` once its mean and its share along the result are taken out. */
function gradient(dy: tf.Tensor, {unit, inverse}: Normalised): tf.Tensor {
  const along = tf.mul(unit, tf.mean(tf.mul(dy, unit), -1, true));
  return tf.mul(tf.sub(tf.sub(dy, tf.mean(dy, -1, true)), along), inverse);
}
