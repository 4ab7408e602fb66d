import * as tf from '../engine/tfjs.js';
import {type AttentionOptions, flatRows, HIDDEN, scaleOf} from './attention.js';
import {multiply} from './mat-mul.js';

/**
 * Attention of S positions from `start` on to themselves and to those before them, whose keys and values a cache has.
 *
 * Shapes as in op/attention, C positions of the cache: those behind the last query are hidden, whatever they hold. No gradient.
 * @param q_NGSd float32 [N, G, S, d]; `k_NCd`, `v_NCd` [N, C, d], the keys and values of the queries' own positions among them.
 * @param start_1 int32 [1]
 * @returns float32 [N, G, S, d]
 */
export function cachedAttention(
  q_NGSd: tf.Tensor4D,
  k_NCd: tf.Tensor3D,
  v_NCd: tf.Tensor3D,
  start_1: tf.Tensor1D,
  options: Pick<AttentionOptions, 'scale' | 'window'> = {},
): tf.Tensor4D {
  const [N, G, S, d] = q_NGSd.shape;
  const C = k_NCd.shape[1];
  const flat = multiply(flatRows(tf.mul(q_NGSd, scaleOf(options, d))), k_NCd, false, true);
  const scores = tf.add(tf.reshape(flat, [N, G, S, C]), hiddenKeys(start_1, S, C, options.window ?? null));
  const weights = tf.softmax(scores) as tf.Tensor4D;
  return tf.reshape(multiply(flatRows(weights), v_NCd, false, false), [N, G, S, d]);
}

/** What hides from each query the keys after it, and those further back than the window; [S, C]. */
function hiddenKeys(start_1: tf.Tensor1D, S: number, C: number, window: number | null): tf.Tensor {
  const query_S1 = tf.add(tf.reshape(numbers(S), [S, 1]), start_1);
  const back_SC = tf.sub(query_S1, numbers(C));
  const isLater = tf.less(back_SC, tf.scalar(0, 'int32'));
  const isHidden =
    window === null ? isLater : tf.logicalOr(isLater, tf.greaterEqual(back_SC, tf.scalar(window, 'int32')));
  return tf.mul(tf.cast(isHidden, 'float32'), HIDDEN);
}

/** int32 [0, 1, ... length − 1] */
function numbers(length: number): tf.Tensor1D {
  return tf.tensor1d(
    Int32Array.from({length}, (_, i) => i),
    'int32',
  );
}
