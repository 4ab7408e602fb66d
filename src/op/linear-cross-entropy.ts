import * as tf from '../engine/tfjs.js';
import {multiply} from './mat-mul.js';

/** Logits that are held at once in any case, in numbers (64 MB). */
const SMALL = 2 ** 24;

/**
 * Mean next-token loss of a linear head, `mean(logsumexp(h·Wᵀ) − (h·Wᵀ)[label])`, in row chunks.
 *
 * Loss and gradient of a chunk come from one pass over its logits, so logits of all rows never exist together
 * and none are recomputed (Hsu et al. 2024, Liger). Rows with a negative label do not count.
 * @param h_TD float32 [T, D]; `head_VD` [V, D]; `label_T` int32 [T]; `maxLogits` numbers held at once, by default as
 * many as the head has: its gradient is that large in any case, and each chunk makes one.
 */
export function linearCrossEntropy(
  h_TD: tf.Tensor2D,
  head_VD: tf.Tensor2D,
  label_T: tf.Tensor1D,
  maxLogits = blockOf(head_VD),
): tf.Scalar {
  return linearLoss(h_TD, head_VD, label_T, maxLogits, (logits, label) => {
    const {loss, probability, target} = chunkLoss(logits, label);
    return {losses: [loss], dLogits: tf.sub(probability, target)};
  }) as tf.Scalar;
}

/** What a chunk of rows gives: losses of each row, and the gradient of the first to its logits. */
export interface ChunkLoss {
  readonly losses: readonly tf.Tensor[];
  readonly dLogits: tf.Tensor;
}

/**
 * Mean losses of a linear head, in row chunks whose loss and gradient come from one pass over their logits.
 *
 * @param ofChunk given logits, labels and the place of the chunk's first row.
 * @returns a scalar for one loss, else a vector of them, of which only the first has a gradient.
 */
export function linearLoss(
  h_TD: tf.Tensor2D,
  head_VD: tf.Tensor2D,
  label_T: tf.Tensor1D,
  maxLogits: number,
  ofChunk: (logits: tf.Tensor2D, label: tf.Tensor1D, begin: number) => ChunkLoss,
): tf.Tensor {
  return tf.customGrad((...args) => {
    const [h, head, save] = args as [tf.Tensor2D, tf.Tensor2D, tf.GradSaveFunc];
    const {losses, dh, dHead} = lossAndGradients(h, head, label_T, maxLogits, ofChunk);
    save([dh, dHead]);
    const [only, ...others] = losses;
    return {
      value: only && others.length === 0 ? only : tf.stack([...losses]),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const first = others.length === 0 ? dy : tf.slice(dy, [0], [1]);
        return saved.map((gradient) => tf.mul(gradient, tf.reshape(first, [])));
      },
    };
  })(h_TD, head_VD);
}

/** How many logits are held at once unless said: as many as the head has, and at least {@link SMALL}. */
export function blockOf({size}: tf.Tensor2D): number {
  return Math.max(SMALL, size);
}

/** Loss of every row [T], zero where the label is negative; for evaluation, not differentiable. */
export function tokenLosses(
  h_TD: tf.Tensor2D,
  head_VD: tf.Tensor2D,
  label_T: tf.Tensor1D,
  maxLogits = SMALL,
): tf.Tensor1D {
  const losses = chunksOf(h_TD, head_VD, maxLogits).map(({begin, rows}) => {
    const label = tf.slice(label_T, [begin], [rows]);
    const {loss} = chunkLoss(multiply(rowsOf(h_TD, begin, rows), head_VD, false, true), label);
    return tf.mul(loss, counted(label)) as tf.Tensor1D;
  });
  return tf.concat(losses, 0) as tf.Tensor1D;
}

function lossAndGradients(
  h: tf.Tensor2D,
  head: tf.Tensor2D,
  label_T: tf.Tensor1D,
  maxLogits: number,
  ofChunk: Parameters<typeof linearLoss>[4],
): {losses: tf.Tensor[]; dh: tf.Tensor; dHead: tf.Tensor} {
  const share = tf.div(1, tf.maximum(tf.sum(counted(label_T)), 1));
  const chunks = chunksOf(h, head, maxLogits).map(({begin, rows}) => {
    const hidden = rowsOf(h, begin, rows);
    const label = tf.slice(label_T, [begin], [rows]);
    const {losses, dLogits: slope} = ofChunk(multiply(hidden, head, false, true), label, begin);
    const weight = tf.mul(counted(label), share);
    const dLogits = tf.mul(slope, tf.expandDims(weight, 1)) as tf.Tensor2D;
    return {
      losses: losses.map((loss) => tf.sum(tf.mul(loss, weight))),
      dh: multiply(dLogits, head, false, false),
      dHead: multiply(dLogits, hidden, true, false),
    };
  });
  const numLosses = chunks[0]?.losses.length ?? 0;
  return {
    losses: Array.from({length: numLosses}, (_, i) => tf.addN(chunks.map(({losses}) => losses[i] as tf.Tensor))),
    dh: tf.concat(
      chunks.map(({dh}) => dh),
      0,
    ),
    dHead: tf.addN(chunks.map(({dHead}) => dHead)),
  };
}

/** Loss of each row, and the two halves of its gradient `probability − target`. */
export function chunkLoss(
  logits: tf.Tensor2D,
  label: tf.Tensor1D,
): {loss: tf.Tensor; probability: tf.Tensor; target: tf.Tensor} {
  const shifted = tf.sub(logits, tf.max(logits, -1, true));
  const exponential = tf.exp(shifted);
  const sum = tf.sum(exponential, -1, true);
  const target = tf.oneHot(label, logits.shape[1]);
  const picked = tf.sum(tf.mul(shifted, target), -1);
  return {loss: tf.sub(tf.log(tf.squeeze(sum, [1])), picked), probability: tf.div(exponential, sum), target};
}

function counted(label: tf.Tensor1D): tf.Tensor1D {
  const isCounted: tf.Tensor1D = tf.greaterEqual(label, tf.scalar(0, 'int32'));
  return tf.cast(isCounted, 'float32');
}

/** Even chunks of whole rows, as few as the limit allows; a single row may exceed it. */
export function chunksOf(h: tf.Tensor2D, head: tf.Tensor2D, maxLogits: number): {begin: number; rows: number}[] {
  const total = h.shape[0];
  const most = Math.max(1, Math.floor(maxLogits / head.shape[0]));
  const size = Math.ceil(total / Math.ceil(total / most));
  const count = Math.ceil(total / size);
  return Array.from({length: count}, (_, i) => ({begin: i * size, rows: Math.min(size, total - i * size)}));
}

/** Rows [begin, begin + rows). */
export function rowsOf(h: tf.Tensor2D, begin: number, rows: number): tf.Tensor2D {
  return tf.slice(h, [begin, 0], [rows, h.shape[1]]);
}
