import * as tf from '@tensorflow/tfjs';
import {oneHot} from './one-hot.js';
import {untaped} from './untaped.js';

/** Indices of the K largest of each row, largest first, ties to the lower index; int32 [T, K], constant to the gradient. */
export function topIndices(score_TE: tf.Tensor2D, topK: number): tf.Tensor2D {
  return untaped(() => tf.topk(score_TE, topK).indices);
}

/** `value[t, k] = x[t, column[t, k]]`: a masked sum, which has a fast gradient where gather along columns has none. */
export function pickColumns(x_TE: tf.Tensor2D, column_TK: tf.Tensor2D): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [x, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([column_TK]);
    const E = x.shape[1];
    return {
      value: tf.sum(tf.mul(oneHot(column_TK, E), tf.expandDims(x, 1)), -1),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [column] = saved as [tf.Tensor2D];
        return tf.sum(tf.mul(oneHot(column, E), tf.expandDims(dy, -1)), 1);
      },
    };
  })(x_TE) as tf.Tensor2D;
}
