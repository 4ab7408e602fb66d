import * as tf from '../engine/tfjs.js';

/** Cosines and sines of every position, each [S, d/2] or, with positions per row, broadcastable to the heads. */
export interface RopeTable {
  readonly cos: tf.Tensor;
  readonly sin: tf.Tensor;
}

/**
 * Rotates pairs (j, j + d/2) of the last axis by their position's angle (Su et al. 2021; the half-split layout of
 * Hugging Face).
 *
 * @param x float32 [..., S, d]; the table broadcasts against [..., S, d/2].
 */
export function rotate<T extends tf.Tensor>(x: T, table: RopeTable): T {
  return tf.customGrad((...args) => {
    const [input, save] = args as [tf.Tensor, tf.GradSaveFunc];
    save([table.cos, table.sin]);
    return {
      value: turn(input, table.cos, table.sin),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [cos, sin] = saved as [tf.Tensor, tf.Tensor];
        return turn(dy, cos, tf.neg(sin)); // a rotation's transpose turns back, whatever it scales
      },
    };
  })(x) as T;
}

/** Cosines and sines of position · frequency, times `amplitude`; host arrays [positions, d/2]. */
export function ropeAngles(
  positions: number,
  frequency: Float32Array,
  amplitude = 1,
): {cos: Float32Array; sin: Float32Array} {
  const half = frequency.length;
  const cos = new Float32Array(positions * half);
  const sin = new Float32Array(positions * half);
  for (let s = 0; s < positions; s++) {
    for (let j = 0; j < half; j++) {
      const angle = Math.fround(s * (frequency[j] as number)); // a float32 angle, as PyTorch computes it
      cos[s * half + j] = amplitude * Math.cos(angle);
      sin[s * half + j] = amplitude * Math.sin(angle);
    }
  }
  return {cos, sin};
}

function turn(x: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor): tf.Tensor {
  const [low, high] = tf.split(x, 2, -1) as [tf.Tensor, tf.Tensor];
  return tf.concat([tf.sub(tf.mul(low, cos), tf.mul(high, sin)), tf.add(tf.mul(high, cos), tf.mul(low, sin))], -1);
}
