import * as tf from '@tensorflow/tfjs';
import {runKernel} from '../engine/kernels.js';
import {untaped} from './untaped.js';

/** Shapes: T tokens, K chosen experts a token, P = T·K pairs, E experts, C rows an expert, R = E·C rows, D width. */

/** Where every chosen pair (token, expert) lies in the experts' buffer, both ways. */
export interface ExpertSlots {
  /** Row of each pair, int32 [P]; R where the expert was full. */
  readonly slot_P: tf.Tensor1D;
  /** Pair in each row, int32 [R]; P where the row is empty. */
  readonly source_R: tf.Tensor1D;
  /** Pairs that wanted each expert, int32 [E]; an expert overflows where this is above C. */
  readonly load_E: tf.Tensor1D;
  readonly topK: number;
}

/** Gives every pair a row of its expert in token order; constant to the gradient. */
export function expertSlots(expert_TK: tf.Tensor2D, numExperts: number, capacity: number): ExpertSlots {
  const [slot_P, source_R, load_E] = untaped(() =>
    runKernel('DowncycleExpertSlots', {expert_TK}, {numExperts, capacity}),
  ) as [tf.Tensor1D, tf.Tensor1D, tf.Tensor1D];
  return {slot_P, source_R, load_E, topK: expert_TK.shape[1]};
}

/**
 * Copies each token's row to its experts: [T, D] → [R, D].
 *
 * Empty rows hold some token's values; {@link combine} never reads them and sends them no gradient.
 */
export function dispatch(x_TD: tf.Tensor2D, slots: ExpertSlots): tf.Tensor2D {
  const {topK} = slots;
  return tf.customGrad((...args) => {
    const [x, save] = args as [tf.Tensor2D, tf.GradSaveFunc];
    save([slots.slot_P]);
    return {
      value: tf.gather(x, tokenOf(slots.source_R, topK, x.shape[0])),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => {
        const [slot] = saved as [tf.Tensor1D];
        const picked = pickRows(dy as tf.Tensor2D, slot);
        return tf.sum(tf.reshape(tf.mul(picked, inside(slot, dy.shape[0] ?? 0)), [-1, topK, x.shape[1]]), 1);
      },
    };
  })(x_TD);
}

/**
 * Adds up each token's expert results by weight: `y_t = Σ_k weight_tk · row(slot_tk)`; a pair without a row adds 0.
 *
 * @param row_RD float32 [R, D]; `weight_TK` [T, K].
 * @returns float32 [T, D]
 */
export function combine(row_RD: tf.Tensor2D, weight_TK: tf.Tensor2D, slots: ExpertSlots): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [rows, weight, save] = args as [tf.Tensor2D, tf.Tensor2D, tf.GradSaveFunc];
    const used = usedWeight(weight, slots.slot_P, rows.shape[0]);
    save([rows, used, slots.slot_P, slots.source_R]);
    const picked = tf.reshape(pickRows(rows, slots.slot_P), [...weight.shape, rows.shape[1]]);
    return {
      value: tf.sum(tf.mul(picked, tf.expandDims(used, -1)), 1),
      gradFunc: (dy: tf.Tensor, saved: tf.Tensor[]) => combineGradients(dy as tf.Tensor2D, saved as CombineSaved),
    };
  })(row_RD, weight_TK) as tf.Tensor2D;
}

type CombineSaved = [rows: tf.Tensor2D, weight: tf.Tensor2D, slot: tf.Tensor1D, source: tf.Tensor1D];

function combineGradients(dy: tf.Tensor2D, [rows, weight, slot, source]: CombineSaved): tf.Tensor[] {
  const [T, K] = weight.shape;
  const D = rows.shape[1];
  const weightOfRow = tf.gather(tf.reshape(weight, [T * K]), clamp(source, T * K));
  const filled = tf.mul(tf.expandDims(weightOfRow, 1), inside(source, T * K));
  const dRows = tf.mul(tf.gather(dy, tokenOf(source, K, T)), filled);
  const picked = tf.reshape(pickRows(rows, slot), [T, K, D]);
  const dWeight = tf.sum(tf.mul(picked, tf.expandDims(dy, 1)), -1);
  return [dRows, usedWeight(dWeight as tf.Tensor2D, slot, rows.shape[0])];
}

function usedWeight(weight: tf.Tensor2D, slot: tf.Tensor1D, numRows: number): tf.Tensor2D {
  return tf.mul(weight, tf.reshape(inside(slot, numRows), weight.shape));
}

function pickRows(rows: tf.Tensor2D, slot: tf.Tensor1D): tf.Tensor2D {
  return tf.gather(rows, clamp(slot, rows.shape[0]));
}

/** 1 where the index points at something, 0 where it is the "none" value `size`; [N, 1]. */
function inside(index: tf.Tensor1D, size: number): tf.Tensor2D {
  return tf.expandDims(tf.cast(tf.less(index, tf.scalar(size, 'int32')), 'float32'), 1);
}

function clamp(index: tf.Tensor1D, size: number): tf.Tensor1D {
  return tf.minimum(index, tf.scalar(size - 1, 'int32'));
}

function tokenOf(source: tf.Tensor1D, topK: number, numTokens: number): tf.Tensor1D {
  return tf.floorDiv(clamp(source, numTokens * topK), tf.scalar(topK, 'int32'));
}
