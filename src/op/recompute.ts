import * as tf from '../engine/tfjs.js';
import {after} from './after.js';
import {untaped} from './untaped.js';

/** What a function gives whose inner results are not kept. */
export interface WithReport {
  /** Has a gradient. */
  readonly value: tf.Tensor;
  /** Have none: indices and counts. */
  readonly report: readonly tf.Tensor[];
}

/** {@link recomputeWithReport} of a function without a report. */
export function recompute(
  fn: (...tensors: tf.Tensor[]) => tf.Tensor,
  inputs: readonly [tf.Tensor, ...tf.Tensor[]],
  constants: readonly tf.Tensor[] = [],
): tf.Tensor {
  return recomputeWithReport((...tensors) => ({value: fn(...tensors), report: []}), inputs, constants).value;
}

/**
 * `fn(...inputs, ...constants)` whose inner results are not kept for the gradient but computed again (Chen et al. 2016).
 *
 * `inputs` get a gradient, zeros where the value does not hang on them; `constants` get none. `fn` must use no other tensor
 * made under the gradient, since tfjs frees those before the second run, and everything it computes must hang on the
 * first input or a constant: only those wait for the incoming gradient, else a compiler would merge both runs and keep
 * the results after all. The other inputs, weights, are not copied.
 */
export function recomputeWithReport(
  fn: (...tensors: tf.Tensor[]) => WithReport,
  inputs: readonly [tf.Tensor, ...tf.Tensor[]],
  constants: readonly tf.Tensor[] = [],
): WithReport {
  let kept: tf.Tensor[] = [];
  const value = tf.customGrad((...args) => {
    const save = args.at(-1) as tf.GradSaveFunc;
    const given = args.slice(0, -1) as tf.Tensor[];
    save([...given, ...constants]);
    const first = fn(...given, ...constants);
    kept = first.report.map((tensor) => tf.keep(tensor.clone()));
    return {
      value: first.value,
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => gradients(fn, dy, saved, inputs.length),
    };
  })(...inputs);
  const report = untaped(() => kept.map((tensor) => tensor.clone()));
  tf.dispose(kept);
  return {value, report};
}

function gradients(
  fn: (...tensors: tf.Tensor[]) => WithReport,
  dy: tf.Tensor,
  saved: readonly tf.Tensor[],
  numInputs: number,
): tf.Tensor[] {
  const [x, ...constants] = after(dy, [...saved.slice(0, 1), ...saved.slice(numInputs)]);
  if (!x) throw new Error('nothing was saved to compute again from');
  const again = [x, ...saved.slice(1, numInputs)];
  const rerun = (): tf.Tensor => fn(...again, ...constants).value;
  const {grads} = withOwnTape(() => tf.engine().gradients(rerun, again, dy, true));
  const found: readonly (tf.Tensor | undefined)[] = grads;
  return again.map((input, i) => found[i] ?? tf.zerosLike(input));
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
