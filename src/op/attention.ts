import * as tf from '../engine/tfjs.js';
import {multiply} from './mat-mul.js';

/**
 * Shapes: N batch × key-value heads, G query heads a key-value head, S sequence, d head width,
 * Q rows of a query block, L keys a block may see.
 */

/** What limits attention besides causality. */
export interface AttentionOptions {
  /** Rows of one query block; keys after a block are never touched. */
  readonly blockRows: number;
  /** Factor on the products of queries and keys; default 1/√d. */
  readonly scale?: number;
  /** Positions see themselves and the `window` − 1 before them; null, the default, is no limit. Hides keys, skips none. */
  readonly window?: number | null;
  /** Segment of every position, int32 [N, S]: positions see only their own segment. */
  readonly segment_NS?: tf.Tensor2D;
}

/**
 * Causal softmax attention `softmax(q·kᵀ·scale)·v` in query blocks, without the masked half.
 *
 * Keeps q, k, v, the result and one log-sum-exp a row; the backward pass recomputes the weights (Dao et al. 2022).
 * @param q_NGSd float32 [N, G, S, d]; `k_NSd`, `v_NSd` [N, S, d].
 * @returns float32 [N, G, S, d]
 */
export function causalAttention(
  q_NGSd: tf.Tensor4D,
  k_NSd: tf.Tensor3D,
  v_NSd: tf.Tensor3D,
  options: AttentionOptions,
): tf.Tensor4D {
  return tf.customGrad((...args) => {
    const [q, k, v, save] = args as [tf.Tensor4D, tf.Tensor3D, tf.Tensor3D, tf.GradSaveFunc];
    const blocks = blocksOf(q.shape[2], options.blockRows).map((block) => forwardBlock(q, k, v, block, options));
    const value = concatRows(blocks.map(({out}) => out));
    const logSum = concatRows(blocks.map((block) => block.logSum));
    save([q, k, v, value, logSum, ...(options.segment_NS ? [options.segment_NS] : [])]);
    return {
      value,
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => backward(dy as tf.Tensor4D, saved as Saved, options),
    };
  })(q_NGSd, k_NSd, v_NSd);
}

type Saved = [
  q: tf.Tensor4D,
  k: tf.Tensor3D,
  v: tf.Tensor3D,
  out: tf.Tensor4D,
  logSum: tf.Tensor4D,
  segment_NS?: tf.Tensor2D,
];

interface Block {
  readonly begin: number;
  readonly end: number;
}

function blocksOf(length: number, rows: number): Block[] {
  const count = Math.ceil(length / rows);
  return Array.from({length: count}, (_, i) => ({begin: i * rows, end: Math.min((i + 1) * rows, length)}));
}

function forwardBlock(q: tf.Tensor4D, k: tf.Tensor3D, v: tf.Tensor3D, block: Block, options: AttentionOptions) {
  const scores = blockScores(rowsOf(q, block), k, block, options);
  const top = tf.max(scores, -1, true);
  const weights = tf.exp(tf.sub(scores, top));
  const sum = tf.sum(weights, -1, true);
  const mixed = multiply(flatRows(weights as tf.Tensor4D), keysOf(v, block), false, false);
  const out = tf.div(tf.reshape(mixed, queryShape(q, block)), sum);
  return {out: out as tf.Tensor4D, logSum: tf.add(top, tf.log(sum)) as tf.Tensor4D};
}

/** Scaled scores of a query block against the keys up to its end [N, G, Q, L]; hidden pairs are −1e30. */
function blockScores(q_NGQd: tf.Tensor4D, k: tf.Tensor3D, block: Block, options: AttentionOptions): tf.Tensor4D {
  const {segment_NS, window = null} = options;
  const [N, G, Q, d] = q_NGQd.shape;
  const flat = multiply(flatRows(tf.mul(q_NGQd, scaleOf(options, d))), keysOf(k, block), false, true);
  const scores = tf.reshape(flat, [N, G, Q, block.end]);
  const hidden = tf.tensor(hiddenPairs(block, window ?? block.end), [1, 1, Q, block.end]);
  const masked = tf.add(scores, hidden);
  return (segment_NS ? tf.add(masked, otherSegments(segment_NS, block)) : masked) as tf.Tensor4D;
}

/** The factor on products of queries and keys. */
export function scaleOf({scale}: Pick<AttentionOptions, 'scale'>, d: number): number {
  return scale ?? 1 / Math.sqrt(d);
}

/** Added to the score of a pair that must not see each other. */
export const HIDDEN = -1e30;

/** Of each row what comes after it, and what is further back than the window. */
function hiddenPairs({begin, end}: Block, window: number): Float32Array {
  const mask = new Float32Array((end - begin) * end);
  for (let row = begin; row < end; row++) {
    const start = (row - begin) * end;
    mask.fill(HIDDEN, start + row + 1, start + end);
    mask.fill(HIDDEN, start, start + Math.max(0, row - window + 1));
  }
  return mask;
}

function otherSegments(segment_NS: tf.Tensor2D, {begin, end}: Block): tf.Tensor {
  const N = segment_NS.shape[0];
  const queries = tf.reshape(tf.slice(segment_NS, [0, begin], [N, end - begin]), [N, 1, end - begin, 1]);
  const keys = tf.reshape(tf.slice(segment_NS, [0, 0], [N, end]), [N, 1, 1, end]);
  return tf.mul(tf.cast(tf.notEqual(queries, keys), 'float32'), HIDDEN);
}

/** dv = pᵀ·do; ds = p ⊙ (do·vᵀ − rowsum(do ⊙ o)) · scale; dq = ds·k; dk = dsᵀ·q. */
function backward(dy: tf.Tensor4D, saved: Saved, given: AttentionOptions): tf.Tensor[] {
  const [q, k, v, out, logSum, segment_NS] = saved;
  const options = {...given, ...(segment_NS && {segment_NS})}; // the saved one lives on
  const [, , length, d] = q.shape;
  const delta = tf.sum(tf.mul(dy, out), -1, true) as tf.Tensor4D;
  const parts = blocksOf(length, options.blockRows).map((block) => {
    const query = rowsOf(q, block);
    const weights = tf.exp(tf.sub(blockScores(query, k, block, options), rowsOf(logSum, block))) as tf.Tensor4D;
    const dOut = flatRows(rowsOf(dy, block));
    const dWeights = tf.reshape(multiply(dOut, keysOf(v, block), false, true), weights.shape);
    const dScores = tf.mul(tf.mul(weights, tf.sub(dWeights, rowsOf(delta, block))), scaleOf(options, d));
    const flat = flatRows(dScores as tf.Tensor4D);
    return {
      dq: tf.reshape(multiply(flat, keysOf(k, block), false, false), queryShape(q, block)) as tf.Tensor4D,
      dk: padRows(multiply(flat, flatRows(query), true, false), length),
      dv: padRows(multiply(flatRows(weights), dOut, true, false), length),
    };
  });
  return [concatRows(parts.map(({dq}) => dq)), tf.addN(parts.map(({dk}) => dk)), tf.addN(parts.map(({dv}) => dv))];
}

function rowsOf(x: tf.Tensor4D, {begin, end}: Block): tf.Tensor4D {
  const [N, G, , d] = x.shape;
  return tf.slice(x, [0, 0, begin, 0], [N, G, end - begin, d]);
}

function keysOf(x: tf.Tensor3D, {end}: Block): tf.Tensor3D {
  return tf.slice(x, [0, 0, 0], [x.shape[0], end, x.shape[2]]);
}

/** [N, G, Q, d] → [N, G·Q, d]: the query heads of one key-value head share its matmul. */
export function flatRows(x: tf.Tensor4D): tf.Tensor3D {
  const [N, G, Q, d] = x.shape;
  return tf.reshape(x, [N, G * Q, d]);
}

function queryShape(q: tf.Tensor4D, {begin, end}: Block): [number, number, number, number] {
  return [q.shape[0], q.shape[1], end - begin, q.shape[3]];
}

function padRows(x: tf.Tensor3D, length: number): tf.Tensor3D {
  const missing = length - x.shape[1];
  return missing === 0
    ? x
    : tf.pad3d(x, [
        [0, 0],
        [0, missing],
        [0, 0],
      ]);
}

function concatRows(parts: tf.Tensor4D[]): tf.Tensor4D {
  return parts.length === 1 && parts[0] ? parts[0] : tf.concat(parts, 2);
}
