import * as tf from '../engine/tfjs.js';

/**
 * Runs `fn` off the gradient tape: its results are constants to the derivative.
 *
 * tfjs has no stop-gradient, and indices on the tape make it throw. Only what `fn` computes is hidden; use the
 * results through operations that save what their own gradient needs.
 */
export function untaped<T>(fn: () => T): T {
  const {state} = tf.engine();
  const {activeTape, gradientDepth} = state;
  Object.assign(state, {activeTape: null, gradientDepth: 0});
  try {
    return fn();
  } finally {
    Object.assign(state, {activeTape, gradientDepth});
  }
}
