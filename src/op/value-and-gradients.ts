import * as tf from '../engine/tfjs.js';
import {untaped} from './untaped.js';

/** What a loss function returns: the number to differentiate, and tensors to report beside it. */
export interface LossWithReport {
  readonly loss: tf.Scalar;
  readonly report: readonly tf.Tensor[];
}

/** Loss, report and the gradient of the loss for each parameter, in their order. */
export interface LossAndGradients {
  readonly loss: tf.Scalar;
  readonly report: tf.Tensor[];
  readonly gradients: tf.Tensor[];
}

/**
 * Differentiates `fn`; tfjs's own `valueAndGrads` lets only the loss out of the forward pass.
 *
 * A parameter that the loss does not depend on, such as a bias that only moves the choice of experts, has the gradient
 * zero; tfjs's own throws.
 */
export function valueAndGradients(
  fn: (parameters: readonly tf.Tensor[]) => LossWithReport,
  parameters: readonly tf.Tensor[],
): LossAndGradients {
  let kept: tf.Tensor[] = [];
  const forward = (): tf.Scalar => {
    const {loss, report} = fn(parameters);
    kept = untaped(() => report.map((tensor) => tf.keep(tensor.clone())));
    return loss;
  };
  const {value, grads} = tf.engine().gradients(forward, [...parameters], undefined, true);
  const found: readonly (tf.Tensor | undefined)[] = grads;
  const report = kept.map((tensor) => tensor.clone());
  tf.dispose(kept);
  return {loss: value, report, gradients: parameters.map((parameter, i) => found[i] ?? tf.zerosLike(parameter))};
}
