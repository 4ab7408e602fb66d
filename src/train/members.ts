// Of a stacked parameter the members that train: some of a layer's experts.
import type * as tf from '../engine/tfjs.js';
import type {Variable} from '../engine/variable.js';
import {putMembers, takeMembers} from '../op/stack.js';
import type {Trained} from './state.js';

/** Of a tensor of a parameter what trains: all of it, or some members. */
export function ofMembers(stack: tf.Tensor, {members}: Trained): tf.Tensor {
  return members ? takeMembers(stack, members) : stack;
}

/** Assigns what trains of a variable; what does not stays to the bit. */
export function assignMembers(variable: Variable, value: tf.Tensor, {members}: Trained): void {
  variable.assign(members ? putMembers(variable.read(), members, value) : value);
}
