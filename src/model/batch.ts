import * as tf from '../engine/tfjs.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import type {DecoderInput} from './decoder.js';

/** Label of a position that is not predicted. */
const IGNORED = -1;

/**
 * Rows of a shard as one int32 tensor [N, B, S]: inputs, labels and, where boundaries were kept, segments.
 *
 * A label is the next token; it is ignored where the mask says so or where the next token opens another document.
 * @param rows B rows of S + 1 tokens.
 */
export function batchTensor({tokens, segments, mask}: ShardRows, sequenceLength: number): tf.Tensor3D {
  const S = sequenceLength;
  const B = tokens.length / (S + 1);
  const planes = segments ? 3 : 2;
  const values = new Int32Array(planes * B * S);
  for (let b = 0; b < B; b++) {
    for (let s = 0; s < S; s++) {
      const from = b * (S + 1) + s;
      const to = b * S + s;
      values[to] = tokens[from] ?? 0;
      const isPredicted = mask?.[from + 1] !== 0 && segments?.[from] === segments?.[from + 1];
      values[B * S + to] = isPredicted ? (tokens[from + 1] ?? 0) : IGNORED;
      if (segments) values[2 * B * S + to] = segments[from] ?? 0;
    }
  }
  return tf.tensor3d(values, [planes, B, S], 'int32');
}

/** Positions of such rows that are predicted. */
export function countLabels({tokens, segments, mask}: ShardRows, sequenceLength: number): number {
  let count = 0;
  for (let from = 0; from < tokens.length; from++) {
    const isLast = from % (sequenceLength + 1) === sequenceLength;
    if (!isLast && mask?.[from + 1] !== 0 && segments?.[from] === segments?.[from + 1]) count++;
  }
  return count;
}

/** Takes a batch tensor apart again, inside a compiled function. */
export function splitBatch(batch_NBS: tf.Tensor3D): {input: DecoderInput; label_T: tf.Tensor1D} {
  const [token_BS, label_BS, segment_BS] = tf.unstack(batch_NBS) as [tf.Tensor2D, tf.Tensor2D, tf.Tensor2D | undefined];
  return {
    input: segment_BS ? {token_BS, segment_BS} : {token_BS},
    label_T: tf.reshape(label_BS, [label_BS.size]),
  };
}
