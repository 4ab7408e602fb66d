import {runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';
import {untaped} from './untaped.js';

/** Uniform numbers in [0, 1) from a seed of two int32 words; equal on every engine, constant to the gradient. */
export function randomUniform(seed_2: tf.Tensor1D, shape: number[]): tf.Tensor {
  return untaped(() => runKernel('DowncycleRandomUniform', {seed: seed_2}, {shape}));
}

/** Standard normal numbers (Box-Muller on {@link randomUniform}). */
export function randomNormal(seed_2: tf.Tensor1D, shape: number[]): tf.Tensor {
  return untaped(() => {
    const [radius, angle] = tf.unstack(randomUniform(seed_2, [2, ...shape])) as [tf.Tensor, tf.Tensor];
    const length = tf.sqrt(tf.mul(tf.log(tf.sub(1, radius)), -2));
    return tf.mul(length, tf.cos(tf.mul(angle, 2 * Math.PI)));
  });
}
