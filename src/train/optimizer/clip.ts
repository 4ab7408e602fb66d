import * as tf from '../../engine/tfjs.js';

/** `√Σ‖g‖²` over all gradients. */
export function globalNorm(gradients: readonly tf.Tensor[]): tf.Scalar {
  return tf.sqrt(tf.addN(gradients.map((gradient) => tf.sum(tf.square(gradient)) as tf.Scalar)));
}

/** Factor that brings the norm down to `limit`: `min(1, limit / (norm + 1e-6))`, as `torch.nn.utils.clip_grad_norm_`. */
export function clipFactor(norm: tf.Scalar, limit: number): tf.Scalar {
  return tf.minimum(1, tf.div(limit, tf.add(norm, 1e-6)));
}
