import * as tf from '../engine/tfjs.js';
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

/** `value[t, k, :] = x[t, block[t, k], :]`, in the same way: [T, E, W] → [T, K, W]. */
export function pickBlocks(x_TEW: tf.Tensor3D, block_TK: tf.Tensor2D): tf.Tensor3D {
  return tf.customGrad((...args) => {
    const [x, save] = args as [tf.Tensor3D, tf.GradSaveFunc];
    save([block_TK]);
    const E = x.shape[1];
    const mask = (block: tf.Tensor): tf.Tensor => tf.expandDims(oneHot(block, E), -1);
    return {
      value: tf.sum(tf.mul(mask(block_TK), tf.expandDims(x, 1)), 2),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [block] = saved as [tf.Tensor2D];
        return tf.sum(tf.mul(mask(block), tf.expandDims(dy, 2)), 1);
      },
    };
  })(x_TEW) as tf.Tensor3D;
}
