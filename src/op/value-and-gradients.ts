import * as tf from '@tensorflow/tfjs';
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

/** Differentiates `fn`; tfjs's own `valueAndGrads` lets only the loss out of the forward pass. */
export function valueAndGradients(
  fn: (parameters: readonly tf.Tensor[]) => LossWithReport,
  parameters: readonly tf.Tensor[],
): LossAndGradients {
  let kept: tf.Tensor[] = [];
  const {value, grads} = tf.valueAndGrads((...given: tf.Tensor[]) => {
    const {loss, report} = fn(given);
    kept = untaped(() => report.map((tensor) => tf.keep(tensor.clone())));
    return loss;
  })([...parameters]);
  const report = kept.map((tensor) => tensor.clone());
  tf.dispose(kept);
  return {loss: value, report, gradients: grads};
}
