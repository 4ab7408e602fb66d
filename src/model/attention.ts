import * as tf from '../engine/tfjs.js';
import type {Variable} from '../engine/variable.js';
import {causalAttention} from '../op/attention.js';
import {cachedAttention} from '../op/cached-attention.js';
import {MATRIX} from '../op/mat-mul.js';
import {rmsNorm} from '../op/rms-norm.js';
import {type RopeTable, rotate} from '../op/rope.js';
import {project, solid, type Weight} from '../op/weight.js';
import {writeRows} from '../op/write-rows.js';
import type {Architecture} from './architecture.js';
import type {LayerCache} from './cache.js';
import type {AttentionTree} from './parameters.js';

/** What attention needs to know of the batch. */
export interface AttentionContext {
  readonly batch: number;
  readonly sequence: number;
  readonly rope: RopeTable;
  /** Segment of each position, int32 [B, S], when documents must not see each other. */
  readonly segment_BS: tf.Tensor2D | null;
  /** There if keys and values of the positions before `start` (int32 [1]) are in a cache, where those of this batch then are, too. */
  readonly past?: {readonly start_1: tf.Tensor1D; readonly layer: LayerCache};
}

/** Query rows a block: half of a short sequence, at most 128. */
function blockRows(sequence: number): number {
  return Math.min(128, Math.max(32, Math.ceil(sequence / 4)));
}

/** Grouped-query causal self-attention with rotary positions; [T, D] → [T, D]. */
export function attention(
  x_TD: tf.Tensor2D,
  params: AttentionTree<Weight>,
  architecture: Architecture,
  {batch: B, sequence: S, rope, segment_BS, past}: AttentionContext,
): tf.Tensor2D {
  const {heads, kvHeads, headDim, multipliers, slidingWindow} = architecture;
  const N = B * kvHeads;
  const {q_TX, k_TX, v_TX} = projections(x_TD, params, architecture);
  const byHead = (x_TX: tf.Tensor2D, numHeads: number): tf.Tensor =>
    tf.transpose(tf.reshape(x_TX, [B, S, numHeads, headDim]), [0, 2, 1, 3]);
  const q_NGSd = tf.reshape(rotate(byHead(q_TX, heads), rope), [N, heads / kvHeads, S, headDim]) as tf.Tensor4D;
  const k_NSd = tf.reshape(rotate(byHead(k_TX, kvHeads), rope), [N, S, headDim]) as tf.Tensor3D;
  const v_NSd = tf.reshape(byHead(v_TX, kvHeads), [N, S, headDim]) as tf.Tensor3D;
  const segments = segment_BS && repeatRows(segment_BS, kvHeads);
  const options = {
    blockRows: blockRows(S),
    window: slidingWindow,
    ...(multipliers.attention !== null && {scale: multipliers.attention}),
    ...(segments && {segment_NS: segments}),
  };
  const kept = past && written(past, k_NSd, v_NSd);
  const isAll = !kept || kept[0].shape[1] === S; // a batch that fills the whole cache has nothing before it
  const mixed_NGSd = isAll
    ? causalAttention(q_NGSd, k_NSd, v_NSd, options)
    : cachedAttention(q_NGSd, ...kept, past.start_1, options);
  const mixed = tf.reshape(mixed_NGSd, [B, heads, S, headDim]);
  const y_TX = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [B * S, heads * headDim]) as tf.Tensor2D;
  return linear(y_TX, params.o, params.oBias);
}

/** All keys and values of a cache, [N, C, d], once those of this batch are in it. */
function written(
  {start_1, layer}: NonNullable<AttentionContext['past']>,
  k_NSd: tf.Tensor3D,
  v_NSd: tf.Tensor3D,
): [k_NCd: tf.Tensor3D, v_NCd: tf.Tensor3D] {
  const write = (variable: Variable, row_NSd: tf.Tensor3D): tf.Tensor3D => {
    const next_NCd = writeRows(variable.read() as tf.Tensor3D, row_NSd, start_1);
    variable.assign(next_NCd);
    return next_NCd;
  };
  return [write(layer.key, k_NSd), write(layer.value, v_NSd)];
}

/** Queries, keys and values before they are turned, [T, heads · d]: projected, clipped, normalised. */
function projections(
  x_TD: tf.Tensor2D,
  {q, k, v, qBias, kBias, vBias, qNorm, kNorm}: AttentionTree<Weight>,
  {qkvClip, normEps}: Architecture,
): {q_TX: tf.Tensor2D; k_TX: tf.Tensor2D; v_TX: tf.Tensor2D} {
  const project = (weight: Weight, bias: Weight | null): tf.Tensor2D => {
    const y_TX = linear(x_TD, weight, bias);
    return qkvClip === null ? y_TX : tf.clipByValue(y_TX, -qkvClip, qkvClip);
  };
  return {
    q_TX: normalised(project(q, qBias), qNorm, normEps),
    k_TX: normalised(project(k, kBias), kNorm, normEps),
    v_TX: project(v, vBias),
  };
}

function linear(x_TD: tf.Tensor2D, weight: Weight, bias: Weight | null): tf.Tensor2D {
  const y_TX = project(x_TD, weight as Weight<tf.Tensor2D>, MATRIX);
  return bias ? tf.add(y_TX, solid(bias)) : y_TX;
}

/** RMS norm over as many columns as the weight has: one head, or all of them. */
function normalised(x_TX: tf.Tensor2D, weight: Weight | null, eps: number): tf.Tensor2D {
  if (!weight) return x_TX;
  const scale = solid(weight) as tf.Tensor1D;
  const rows = tf.reshape(x_TX, [-1, scale.size]) as tf.Tensor2D;
  return tf.reshape(rmsNorm(rows, scale, eps), x_TX.shape);
}

/** [B, S] → [B·n, S], each row n times. */
function repeatRows(x_BS: tf.Tensor2D, n: number): tf.Tensor2D {
  const [B, S] = x_BS.shape;
  return tf.reshape(tf.tile(tf.expandDims(x_BS, 1), [1, n, 1]), [B * n, S]);
}
