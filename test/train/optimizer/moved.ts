import {
  type Movable,
  type OptimizerOptions,
  slotShapes,
  stepFigures,
  updated,
} from '../../../src/train/optimizer/update.js';
import type {TestEngine} from '../../support/engines.js';
import {floats, type Host} from '../../support/host.js';
import * as tf from '../../support/tfjs.js';

/** Where an update happens, and whether it may. */
export interface At {
  readonly lr: number;
  readonly t: number;
  readonly isSafe?: boolean;
}

/** A parameter before its first update, and what the optimizer keeps of it. */
export function startOf(options: OptimizerOptions, parameter: Movable, value: Host): Host[] {
  const slots = Object.values(slotShapes(options, parameter));
  return [value, ...slots.map((shape) => floats([...shape], new Float32Array(shape.reduce((a, b) => a * b, 1))))];
}

/** A parameter and its slots after one update on an engine. */
export async function moved(
  {run}: TestEngine,
  options: OptimizerOptions,
  parameter: Movable,
  [value, ...slots]: readonly Host[],
  gradient: Host,
  {lr, t, isSafe = true}: At,
): Promise<Host[]> {
  const fn = (g: tf.Tensor, rates: tf.Tensor, p: tf.Tensor, ...kept: tf.Tensor[]): tf.Tensor[] => {
    const [learningRate, ...figures] = tf.unstack(rates) as [tf.Tensor, ...tf.Tensor[]];
    const update = {value: p, slots: kept, gradient: g, learningRate, figures, decays: parameter.decays};
    const after = updated(options, parameter, {...update, isSafe: tf.scalar(isSafe, 'bool')});
    return [after.value, ...after.slots];
  };
  return run(fn, gradient, floats([3], [lr, ...stepFigures(options, t)]), value!, ...slots);
}
