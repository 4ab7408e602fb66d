import type * as tf from '../engine/tfjs.js';
import {MATRIX} from '../op/mat-mul.js';
import {swiglu} from '../op/swiglu.js';
import {project, projectSwiglu, type Weight} from '../op/weight.js';
import type {GluTree} from './parameters.js';

/** `(silu(x·gate) ⊙ (x·up))·down`; [T, D] → [T, D]. */
export function glu(x_TD: tf.Tensor2D, {gate, up, down}: GluTree<Weight>): tf.Tensor2D {
  const [gate_TF, up_TF] = [rowsTimes(x_TD, gate), rowsTimes(x_TD, up)];
  return projectSwiglu(gate_TF, up_TF, down as Weight<tf.Tensor2D>, MATRIX);
}

/** What the neurons of a GLU give, `silu(x·gate) ⊙ (x·up)`; [T, D] → [T, F]. */
export function gluHidden(x_TD: tf.Tensor2D, {gate, up}: Pick<GluTree<Weight>, 'gate' | 'up'>): tf.Tensor2D {
  return swiglu(rowsTimes(x_TD, gate), rowsTimes(x_TD, up));
}

function rowsTimes(x_TD: tf.Tensor2D, weight: Weight): tf.Tensor2D {
  return project(x_TD, weight as Weight<tf.Tensor2D>, MATRIX);
}
