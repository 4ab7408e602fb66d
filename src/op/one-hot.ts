import * as tf from '../engine/tfjs.js';

/** 1 where an index points and 0 elsewhere, float32 [..., depth]; `tf.oneHot`, but of a depth of 1 too. */
export function oneHot(index: tf.Tensor, depth: number): tf.Tensor {
  return depth === 1 ? tf.ones([...index.shape, 1]) : tf.cast(tf.oneHot(index, depth), 'float32');
}
