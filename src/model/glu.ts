import type * as tf from '@tensorflow/tfjs';
import {MATRIX, matMul} from '../op/mat-mul.js';
import {swigluMultiplied} from '../op/product.js';
import {swiglu} from '../op/swiglu.js';
import type {GluTree} from './parameters.js';

/** `(silu(x·gate) ⊙ (x·up))·down`; [T, D] → [T, D]. */
export function glu(x_TD: tf.Tensor2D, {gate, up, down}: GluTree<tf.Tensor>): tf.Tensor2D {
  const [gate_TF, up_TF] = [matMul(x_TD, gate as tf.Tensor2D), matMul(x_TD, up as tf.Tensor2D)];
  return swigluMultiplied(gate_TF, up_TF, down as tf.Tensor2D, MATRIX);
}

/** What the neurons of a GLU give, `silu(x·gate) ⊙ (x·up)`; [T, D] → [T, F]. */
export function gluHidden(x_TD: tf.Tensor2D, {gate, up}: Pick<GluTree<tf.Tensor>, 'gate' | 'up'>): tf.Tensor2D {
  return swiglu(matMul(x_TD, gate as tf.Tensor2D), matMul(x_TD, up as tf.Tensor2D));
}
