import * as tf from '@tensorflow/tfjs';
import {causalAttention} from '../op/attention.js';
import {matMul} from '../op/mat-mul.js';
import {type RopeTable, rotate} from '../op/rope.js';
import type {Architecture} from './architecture.js';
import type {LayerTree} from './parameters.js';

/** What attention needs to know of the batch. */
export interface AttentionContext {
  readonly batch: number;
  readonly sequence: number;
  readonly rope: RopeTable;
  /** Segment of each position, int32 [B, S], when documents must not see each other. */
  readonly segment_BS: tf.Tensor2D | null;
}

/** Query rows a block: half of a short sequence, at most 128. */
function blockRows(sequence: number): number {
  return Math.min(128, Math.max(32, Math.ceil(sequence / 4)));
}

/** Grouped-query causal self-attention with rotary positions; [T, D] → [T, D]. */
export function attention(
  x_TD: tf.Tensor2D,
  {q, k, v, o}: LayerTree<tf.Tensor>['attention'],
  {heads, kvHeads, headDim}: Architecture,
  {batch: B, sequence: S, rope, segment_BS}: AttentionContext,
): tf.Tensor2D {
  const N = B * kvHeads;
  const project = (w: tf.Tensor, numHeads: number): tf.Tensor =>
    tf.transpose(tf.reshape(matMul(x_TD, w as tf.Tensor2D), [B, S, numHeads, headDim]), [0, 2, 1, 3]);
  const q_NGSd = tf.reshape(rotate(project(q, heads), rope), [N, heads / kvHeads, S, headDim]) as tf.Tensor4D;
  const k_NSd = tf.reshape(rotate(project(k, kvHeads), rope), [N, S, headDim]) as tf.Tensor3D;
  const v_NSd = tf.reshape(project(v, kvHeads), [N, S, headDim]) as tf.Tensor3D;
  const segments = segment_BS && repeatRows(segment_BS, kvHeads);
  const options = {blockRows: blockRows(S), ...(segments && {segment_NS: segments})};
  const mixed = tf.reshape(causalAttention(q_NGSd, k_NSd, v_NSd, options), [B, heads, S, headDim]);
  const y_TX = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [B * S, heads * headDim]) as tf.Tensor2D;
  return matMul(y_TX, o as tf.Tensor2D);
}

/** [B, S] → [B·n, S], each row n times. */
function repeatRows(x_BS: tf.Tensor2D, n: number): tf.Tensor2D {
  const [B, S] = x_BS.shape;
  return tf.reshape(tf.tile(tf.expandDims(x_BS, 1), [1, n, 1]), [B * n, S]);
}
