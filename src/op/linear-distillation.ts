import * as tf from '@tensorflow/tfjs';
import {blockOf, chunkLoss, linearLoss} from './linear-cross-entropy.js';
import {multiply} from './mat-mul.js';

/** Who teaches, and how much. */
export interface Teacher {
  /** Its hidden states after the last norm, float32 [T, C]; constant to the gradient. */
  readonly hidden_TC: tf.Tensor2D;
  /** Its head, [V, C]. */
  readonly head_VC: tf.Tensor2D;
  /** τ: both sides' logits are divided by it. */
  readonly temperature: number;
  /** Share of the teacher in the loss. */
  readonly weight: number;
}

/**
 * Mean loss of a linear head that learns from labels and from a teacher (Hinton et al. 2015, arXiv 1503.02531):
 * `(1 − w)·CE + w·τ²·KL(teacher^τ ‖ student^τ)`, in row chunks as {@link linearLoss}.
 *
 * @returns float32 [3]: the loss, which alone has a gradient, CE, and KL at temperature τ. Rows with a negative label do
 * not count.
 */
export function linearDistillation(
  h_TD: tf.Tensor2D,
  head_VD: tf.Tensor2D,
  label_T: tf.Tensor1D,
  {hidden_TC, head_VC, temperature, weight}: Teacher,
  maxLogits = blockOf(head_VD),
): tf.Tensor1D {
  return linearLoss(h_TD, head_VD, label_T, maxLogits, (logits, label, begin) => {
    const rows = tf.slice(hidden_TC, [begin, 0], [label.shape[0], hidden_TC.shape[1]]);
    const taught = logSoftmax(tf.div(multiply(rows, head_VC, false, true), temperature));
    const learnt = logSoftmax(tf.div(logits, temperature));
    const {loss, probability, target} = chunkLoss(logits, label);
    const divergence = tf.sum(tf.mul(tf.exp(taught), tf.sub(taught, learnt)), -1);
    const slope = tf.mul(tf.sub(tf.exp(learnt), tf.exp(taught)), weight * temperature);
    const total = tf.add(tf.mul(loss, 1 - weight), tf.mul(divergence, weight * temperature ** 2));
    return {
      losses: [total, loss, divergence],
      dLogits: tf.add(tf.mul(tf.sub(probability, target), 1 - weight), slope),
    };
  }) as tf.Tensor1D;
}

function logSoftmax(logits: tf.Tensor): tf.Tensor {
  const shifted = tf.sub(logits, tf.max(logits, -1, true));
  return tf.sub(shifted, tf.log(tf.sum(tf.exp(shifted), -1, true)));
}
