import * as tf from '../engine/tfjs.js';
import type {Product} from './product.js';

/**
 * Each row times the matrix of its own expert, [P, D] · [E, D, F] → [P, F], of which only those chosen are read.
 *
 * A sum of products rather than a matmul: XLA then gathers, multiplies and adds in one pass, where a matmul would wait for a copy
 * of the matrices. For a few rows, where reading matrices is what takes time. No gradient.
 * @param expert_P int32 [P], each below E.
 */
export function chosenProduct(expert_P: tf.Tensor1D): Product<tf.Tensor2D, tf.Tensor3D> {
  return {
    constants: [expert_P],
    multiply: (x_PD, w_EDF, [chosen_P]) =>
      tf.sum(tf.mul(tf.gather(w_EDF, chosen_P as tf.Tensor1D), tf.expandDims(x_PD, 2)), 1),
    gradients: () => {
      throw new Error('a product with chosen experts has no gradient');
    },
  };
}
