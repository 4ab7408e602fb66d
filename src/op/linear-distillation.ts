import {runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';
import {blockOf, chunkLoss, chunksOf, linearLoss, rowsOf} from './linear-cross-entropy.js';
import {multiply} from './mat-mul.js';

/** Who teaches, and how much. */
export interface Lesson {
  readonly taught: Taught;
  /** τ: both sides' logits are divided by it. */
  readonly temperature: number;
  /** Share of the teacher in the loss. */
  readonly weight: number;
}

/** What a teacher foresees; constant to the gradient. */
export type Taught =
  /** Hidden states after its last norm, float32 [T, C], and its head, [V, C]. */
  | {readonly kind: 'whole'; readonly hidden_TC: tf.Tensor2D; readonly head_VC: tf.Tensor2D}
  /** Its K likeliest words at τ; all others count as one word. See {@link topWords}. */
  | ({readonly kind: 'top'} & TopWords);

/** The likeliest words of T places. */
export interface TopWords {
  /** int32 [T, K], likeliest first. */
  readonly word_TK: tf.Tensor2D;
  /** Logarithms of their probabilities at τ, float32 [T, K]. */
  readonly logShare_TK: tf.Tensor2D;
}

/** Least share of the words that are not among the likeliest: below it float32 only knows rounding. */
const LEAST_REST = 1e-6;

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
  {taught, temperature, weight}: Lesson,
  maxLogits = blockOf(head_VD),
): tf.Tensor1D {
  return linearLoss(h_TD, head_VD, label_T, maxLogits, (logits, label, begin) => {
    const learnt = logSoftmax(tf.div(logits, temperature));
    const {divergence, share} = divergenceFrom(taught, learnt, temperature, begin);
    const {loss, probability, target} = chunkLoss(logits, label);
    const slope = tf.mul(tf.sub(tf.exp(learnt), share), weight * temperature);
    const total = tf.add(tf.mul(loss, 1 - weight), tf.mul(divergence, weight * temperature ** 2));
    return {
      losses: [total, loss, divergence],
      dLogits: tf.add(tf.mul(tf.sub(probability, target), 1 - weight), slope),
    };
  }) as tf.Tensor1D;
}

/**
 * The K likeliest words of a linear head at temperature τ, in row chunks; not differentiable.
 *
 * @param hidden_TC float32 [T, C]; `head_VC` [V, C].
 */
export function topWords(
  hidden_TC: tf.Tensor2D,
  head_VC: tf.Tensor2D,
  {topK, temperature}: {readonly topK: number; readonly temperature: number},
  maxLogits = blockOf(head_VC),
): TopWords {
  const chunks = chunksOf(hidden_TC, head_VC, maxLogits).map(({begin, rows}) => {
    const logits = multiply(rowsOf(hidden_TC, begin, rows), head_VC, false, true);
    return tf.topk(logSoftmax(tf.div(logits, temperature)), topK);
  });
  return {
    word_TK: tf.concat(chunks.map(({indices}) => indices as tf.Tensor2D)),
    logShare_TK: tf.concat(chunks.map(({values}) => values as tf.Tensor2D)),
  };
}

/** Of a chunk of rows KL [C], and the shares that the teacher gives to all words, [C, V]. */
interface Divergence {
  readonly divergence: tf.Tensor;
  readonly share: tf.Tensor;
}

function divergenceFrom(taught: Taught, learnt_CV: tf.Tensor2D, temperature: number, begin: number): Divergence {
  const rows = learnt_CV.shape[0];
  if (taught.kind === 'top') {
    const {word_TK, logShare_TK} = taught;
    return fromTop({word_TK: rowsOf(word_TK, begin, rows), logShare_TK: rowsOf(logShare_TK, begin, rows)}, learnt_CV);
  }
  const logits = multiply(rowsOf(taught.hidden_TC, begin, rows), taught.head_VC, false, true);
  const logShare = logSoftmax(tf.div(logits, temperature));
  const share = tf.exp(logShare);
  return {divergence: tf.sum(tf.mul(share, tf.sub(logShare, learnt_CV)), -1), share};
}

/** The teacher's share of what is not among its likeliest words is spread over those as the student spreads its own. */
function fromTop({word_TK, logShare_TK}: TopWords, learnt_CV: tf.Tensor2D): Divergence {
  const [C, V] = learnt_CV.shape;
  const place_N = placesOf(word_TK, V);
  const learnt_CK = tf.reshape(tf.gather(tf.reshape(learnt_CV, [C * V]), place_N), word_TK.shape);
  const [taughtShare, learntShare] = [tf.exp(logShare_TK), tf.exp(learnt_CK)];
  const [taughtRest, learntRest] = [restOf(taughtShare), restOf(learntShare)];
  const among = tf.sum(tf.mul(taughtShare, tf.sub(logShare_TK, learnt_CK)), -1);
  const beyond = tf.mul(taughtRest, tf.sub(tf.log(taughtRest), tf.log(learntRest)));
  const ratio = tf.div(taughtRest, learntRest);
  const spread_CV = tf.mul(tf.exp(learnt_CV), ratio);
  const correction = tf.sub(taughtShare, tf.mul(learntShare, ratio));
  const share = runKernel(
    'DowncycleScatterAdd',
    {base: tf.reshape(spread_CV, [C * V, 1]), index: place_N, rows: tf.reshape(correction, [-1, 1])},
    {},
  );
  return {divergence: tf.add(among, tf.squeeze(beyond, [1])), share: tf.reshape(share, [C, V])};
}

/** Where the words of each row stand in the flattened shares, int32 [C·K]. */
function placesOf(word_CK: tf.Tensor2D, V: number): tf.Tensor1D {
  const first_C1 = tf.mul(tf.range(0, word_CK.shape[0], 1, 'int32'), tf.scalar(V, 'int32'));
  return tf.reshape(tf.add(word_CK, tf.expandDims(first_C1, 1)), [-1]);
}

/** What is left of one, [C, 1]. */
function restOf(share_CK: tf.Tensor): tf.Tensor {
  return tf.maximum(tf.sub(1, tf.sum(share_CK, -1, true)), LEAST_REST);
}

function logSoftmax(logits: tf.Tensor): tf.Tensor2D {
  const shifted = tf.sub(logits, tf.max(logits, -1, true));
  return tf.sub(shifted, tf.log(tf.sum(tf.exp(shifted), -1, true)));
}
