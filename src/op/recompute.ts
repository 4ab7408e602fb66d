import * as tf from '@tensorflow/tfjs';

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

/**
 * The same bits, but not before `dy` is known: `x − min(|dy₀|, 0)`.
 *
 * A dependency of the data is what holds everywhere: XLA's processor backend drops optimisation barriers before it
 * orders the work, and then runs all second runs early, which keeps as much as not recomputing.
 */
function after(dy: tf.Tensor, tensors: readonly tf.Tensor[]): tf.Tensor[] {
  const zero = tf.reshape(tf.minimum(tf.abs(tf.slice(tf.reshape(dy, [-1]), [0], [1])), 0), []);
  return tensors.map((tensor) => tf.sub(tensor, zero));
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
