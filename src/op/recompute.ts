import * as tf from '@tensorflow/tfjs';
import {after} from './after.js';

/**
 * `fn(...inputs)` whose inner results are not kept for the gradient but computed again (Chen et al. 2016).
 *
 * `fn` is given `inputs`, which get a gradient, and then `constants`, which do not; it must use no other tensor made
 * under the gradient, since tfjs frees those before the second run. That run waits
 * for the incoming gradient: else a compiler would merge both runs and keep the results after all.
 */
export function recompute(
  fn: (...tensors: tf.Tensor[]) => tf.Tensor,
  inputs: readonly tf.Tensor[],
  constants: readonly tf.Tensor[] = [],
): tf.Tensor {
  return tf.customGrad((...args) => {
    const save = args.at(-1) as tf.GradSaveFunc;
    const given = args.slice(0, -1) as tf.Tensor[];
    save([...given, ...constants]);
    return {
      value: fn(...given, ...constants),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const again = after(dy, saved.slice(0, inputs.length));
        const rerun = (...tensors: tf.Tensor[]): tf.Tensor => fn(...tensors, ...saved.slice(inputs.length));
        return withOwnTape(() => tf.grads(rerun)(again, dy));
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
