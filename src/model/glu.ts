import type * as tf from '@tensorflow/tfjs';
import {matMul} from '../op/mat-mul.js';
import {swiglu} from '../op/swiglu.js';
import type {GluTree} from './parameters.js';

/** `(silu(x·gate) ⊙ (x·up))·down`; [T, D] → [T, D]. */
export function glu(x_TD: tf.Tensor2D, {gate, up, down}: GluTree<tf.Tensor>): tf.Tensor2D {
  const h_TF = swiglu(matMul(x_TD, gate as tf.Tensor2D), matMul(x_TD, up as tf.Tensor2D));
  return matMul(h_TF, down as tf.Tensor2D);
}
