import * as tf from '../engine/tfjs.js';

/**
 * The same bits, but not before `dy` is known: `x − min(|dy₀|, 0)`; float32 or int32.
 *
 * What a gradient computes again from these is not merged with the forward pass, which would keep it in memory. A
 * dependency of the data is what holds everywhere: XLA's processor backend drops optimisation barriers before it
 * orders the work, and then runs all second runs early, which keeps as much as not recomputing.
 */
export function after<T extends readonly tf.Tensor[]>(dy: tf.Tensor, tensors: T): T {
  const zero = tf.reshape(tf.minimum(tf.abs(tf.slice(tf.reshape(dy, [-1]), [0], [1])), 0), []);
  const later: readonly tf.Tensor[] = tensors.map((tensor) => tf.sub(tensor, tf.cast(zero, tensor.dtype)));
  return later as T;
}
