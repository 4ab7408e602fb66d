// Rows of experts that choose their tokens: as many for each. Shapes: T tokens, E experts, C rows of each, R = E·C, D width.

import {runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';

/** Copies the row of each chosen token: [T, D] → [R, D]; a token may come more than once, or not at all. */
export function takeRows(x_TD: tf.Tensor2D, token_R: tf.Tensor1D): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [x, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([token_R]);
    return {
      value: tf.gather(x, token_R),
      gradFunc: (dy: tf.Tensor, [token]: tf.Tensor[]) => addUp(dy as tf.Tensor2D, token as tf.Tensor1D, x.shape[0]),
    };
  })(x_TD) as tf.Tensor2D;
}

/** Adds every row to its token: [R, D] → [T, D], zeros for a token without rows. */
export function addRows(row_RD: tf.Tensor2D, token_R: tf.Tensor1D, numTokens: number): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [rows, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([token_R]);
    return {
      value: addUp(rows, token_R, numTokens),
      gradFunc: (dy: tf.Tensor, [token]: tf.Tensor[]) => tf.gather(dy, token as tf.Tensor1D),
    };
  })(row_RD) as tf.Tensor2D;
}

function addUp(rows: tf.Tensor2D, token_R: tf.Tensor1D, numTokens: number): tf.Tensor2D {
  const base = tf.zeros([numTokens, rows.shape[1]]);
  return runKernel('DowncycleScatterAdd', {base, index: token_R, rows}, {}) as tf.Tensor2D;
}
