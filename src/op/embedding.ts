import * as tf from '../engine/tfjs.js';

/**
 * Rows of a table: `table[ids]`, with the gradient added up by row.
 *
 * @param table_VD float32 [V, D]; `id_T` int32 [T], each in [0, V).
 */
export function embed(table_VD: tf.Tensor2D, id_T: tf.Tensor1D): tf.Tensor2D {
  const numRows = table_VD.shape[0];
  return tf.customGrad((...args) => {
    const [table, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([id_T]);
    return {
      value: tf.gather(table, id_T),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [ids] = saved as [tf.Tensor1D];
        return tf.unsortedSegmentSum(dy, ids, numRows);
      },
    };
  })(table_VD);
}
