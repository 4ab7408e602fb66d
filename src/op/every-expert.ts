// Products of every row with the matrices of every expert, as plain matmuls over all of them at once.
// Shapes: T rows, E experts, D width, F expert width, r rank.
import * as tf from '../engine/tfjs.js';
import {matMul} from './mat-mul.js';
import {drop, isLowRank, type Weight} from './weight.js';

/** Every row times the matrix of every expert: [T, D] · [E, D, F] → [T, E, F]. */
export function toEveryExpert(x_TD: tf.Tensor2D, weight: Weight<tf.Tensor3D>): tf.Tensor3D {
  if (!isLowRank(weight)) return sideBySide(x_TD, weight);
  const {base, a, b, scale, dropout} = weight;
  const low_TEr = sideBySide(drop(x_TD, dropout), a);
  const low_TEF = swapped(matMul(swapped(low_TEr), b));
  return tf.add(sideBySide(x_TD, base), tf.mul(low_TEF, scale));
}

/** What every expert's matrix makes of its own numbers, added up: [T, E, F] · [E, F, D] → [T, D]. */
export function fromEveryExpert(h_TEF: tf.Tensor3D, weight: Weight<tf.Tensor3D>): tf.Tensor2D {
  if (!isLowRank(weight)) return summed(h_TEF, weight);
  const {base, a, b, scale, dropout} = weight;
  const low_TEr = swapped(matMul(swapped(drop(h_TEF, dropout)), a));
  return tf.add(summed(h_TEF, base), tf.mul(summed(low_TEr, b), scale));
}

function sideBySide(x_TD: tf.Tensor2D, w_EDF: tf.Tensor3D): tf.Tensor3D {
  const [E, D, F] = w_EDF.shape;
  const wide_DN = tf.reshape(swapped(w_EDF), [D, E * F]) as tf.Tensor2D;
  return tf.reshape(matMul(x_TD, wide_DN), [x_TD.shape[0], E, F]);
}

function summed(h_TEF: tf.Tensor3D, w_EFD: tf.Tensor3D): tf.Tensor2D {
  const [E, F, D] = w_EFD.shape;
  const flat_TN = tf.reshape(h_TEF, [h_TEF.shape[0], E * F]) as tf.Tensor2D;
  return matMul(flat_TN, tf.reshape(w_EFD, [E * F, D]) as tf.Tensor2D);
}

/** The first two axes in each other's place. */
function swapped(x: tf.Tensor3D): tf.Tensor3D {
  return tf.transpose(x, [1, 0, 2]);
}
