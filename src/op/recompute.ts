import * as tf from '@tensorflow/tfjs';
import {barrier} from '../engine/barrier.js';

/**
 * `fn(...inputs)` whose inner results are not kept for the gradient but computed again (Chen et al. 2016).
 *
 * Everything `fn` needs a gradient for must be among `inputs`. The barrier ties the second run to the incoming
 * gradient: without it a compiler would merge both runs and keep the results after all.
 */
export function recompute(fn: (...inputs: tf.Tensor[]) => tf.Tensor, inputs: readonly tf.Tensor[]): tf.Tensor {
  return tf.customGrad((...args) => {
    const save = args.at(-1) as tf.GradSaveFunc;
    const given = args.slice(0, -1) as tf.Tensor[];
    save(given);
    return {
      value: fn(...given),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [fenced, ...again] = barrier([dy, ...saved]);
        if (!fenced) throw new Error('the barrier lost the gradient');
        return withOwnTape(() => tf.grads(fn)(again, fenced));
      },
    };
  })(...inputs);
}

/** A gradient inside a gradient function: tfjs clears the outer tape unless it is put aside. */
function withOwnTape<T>(fn: () => T): T {
  const {state} = tf.engine();
  const {activeTape, gradientDepth} = state;
  Object.assign(state, {activeTape: [], gradientDepth: 0});
  try {
    return fn();
  } finally {
    Object.assign(state, {activeTape, gradientDepth});
  }
}
