// How gradients change what trains, inside a compiled step.
import * as tf from '../engine/tfjs.js';
import {at} from '../util/at.js';
import {assignMembers, ofMembers} from './members.js';
import {clipFactor} from './optimizer/clip.js';
import {updated} from './optimizer/update.js';
import {PARTS} from './part.js';
import type {TrainState} from './state.js';
import type {StepOptions} from './step.js';

/** Updates what trains; says whether the step was fit to be applied. */
export function applyGradients(
  {trained}: TrainState,
  {optimizer, clip, emaDecay = 0}: StepOptions,
  gradients: readonly tf.Tensor[],
  {norm, loss}: {readonly norm: tf.Scalar; readonly loss: tf.Scalar},
  rates_N: tf.Tensor1D,
): tf.Tensor {
  const [limit, ...rates] = tf.unstack(rates_N);
  if (!limit) throw new Error('the rates of a step begin with the limit of its loss');
  const isSafe = tf.logicalAnd(tf.isFinite(norm), tf.lessEqual(loss, limit));
  const factor = clip > 0 ? clipFactor(norm, clip) : null;
  const figures = rates.slice(0, -PARTS.length);
  const learningRates = rates.slice(-PARTS.length);
  for (const [i, one] of trained.entries()) {
    const slots = [...one.slots.values()];
    const gradient = factor ? tf.mul(at(gradients, i), factor) : at(gradients, i);
    const after = updated(optimizer, one, {
      value: ofMembers(one.variable.read(), one),
      slots: slots.map((slot) => slot.read()),
      gradient,
      learningRate: at(learningRates, PARTS.indexOf(one.part)),
      figures,
      isSafe,
      decays: one.decays,
    });
    assignMembers(one.variable, after.value, one);
    for (const [k, slot] of slots.entries()) slot.assign(at(after.slots, k));
    if (!one.ema) continue;
    const mean = ofMembers(one.ema.read(), one);
    assignMembers(one.ema, tf.where(isSafe, mixed(mean, after.value, emaDecay), mean), one);
  }
  return isSafe;
}

/** `decay·mean + (1 − decay)·value` */
function mixed(mean: tf.Tensor, value: tf.Tensor, decay: number): tf.Tensor {
  return tf.add(tf.mul(mean, decay), tf.mul(value, 1 - decay));
}
