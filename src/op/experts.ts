import {runKernel} from '../engine/kernels.js';
import * as tf from '../engine/tfjs.js';
import {after} from './after.js';
import {multiply} from './mat-mul.js';
import type {Product} from './product.js';
import {untaped} from './untaped.js';

/**
 * Shapes: T tokens, K chosen experts a token, P = T·K pairs, E experts, C rows of every expert, S spare blocks of H rows,
 * R = E·C + S·H rows, D width, F expert width.
 */

/** Rows of the experts' buffer: first some of every expert, then spare blocks for experts that want more. */
export interface ExpertRoom {
  /** C, rows that every expert has. */
  readonly rows: number;
  /** H, rows of a spare block, all of one expert. */
  readonly blockRows: number;
  /** S, spare blocks. */
  readonly blocks: number;
}

/** Where every chosen pair (token, expert) lies in the experts' buffer, both ways. */
export interface ExpertSlots {
  readonly room: ExpertRoom;
  /** Row of each pair, int32 [P]; R where there was no room. */
  readonly slot_P: tf.Tensor1D;
  /** Pair in each row, int32 [R]; P where the row is empty. */
  readonly source_R: tf.Tensor1D;
  /** Pairs that wanted each expert, int32 [E]. */
  readonly load_E: tf.Tensor1D;
  /** Expert of each spare block, int32 [S]. */
  readonly expert_S: tf.Tensor1D;
  readonly topK: number;
}

/** What products of rows need to know of where those of each expert lie. */
export type RowsByExpert = Pick<ExpertSlots, 'room' | 'expert_S'>;

/** Gives every pair a row of its expert in token order, none to a pair whose expert is E or more; constant to the gradient. */
export function expertSlots(expert_TK: tf.Tensor2D, numExperts: number, room: ExpertRoom): ExpertSlots {
  const [slot_P, source_R, load_E, expert_S] = untaped(() =>
    runKernel('DowncycleExpertSlots', {expert_TK}, {numExperts, ...room}),
  ) as [tf.Tensor1D, tf.Tensor1D, tf.Tensor1D, tf.Tensor1D];
  return {room, slot_P, source_R, load_E, expert_S, topK: expert_TK.shape[1]};
}

/**
 * Each row times the matrix of its expert: [R, D] · [E, D, F] → [R, F].
 *
 * The rows that every expert has are one batched product, the spare blocks another whose matrices are gathered; that
 * copy is made again in the gradient rather than kept.
 */
export function expertProduct({room, expert_S}: RowsByExpert): Product<tf.Tensor2D, tf.Tensor3D> {
  return {
    constants: [expert_S],
    multiply: (x_RD, w_EDF, [experts]) =>
      byPart(x_RD, room, matricesOf(w_EDF, room, experts as tf.Tensor1D), (rows, matrices) =>
        multiply(rows, matrices, false, false),
      ),
    gradients: (dy_RF, x_RD, w_EDF, [experts]) => expertGradients(dy_RF, [x_RD, w_EDF, experts as tf.Tensor1D], room),
  };
}

function expertGradients(
  dy_RF: tf.Tensor2D,
  [x_RD, w_EDF, expert_S]: [tf.Tensor2D, tf.Tensor3D, tf.Tensor1D],
  room: ExpertRoom,
): [tf.Tensor2D, tf.Tensor3D] {
  const [again_S] = after(dy_RF, [expert_S] as const);
  const [first, last] = [tf.scalar(0, 'int32'), tf.scalar(w_EDF.shape[0] - 1, 'int32')];
  const inside_S: tf.Tensor1D = tf.maximum(tf.minimum(again_S, last), first); // whatever a dy of NaN makes of it
  const parts = matricesOf(w_EDF, room, inside_S);
  const dx_RD = byPart(dy_RF, room, parts, (rows, matrices) => multiply(rows, matrices, false, true));
  const [E, D, F] = w_EDF.shape;
  const dyParts = partsOf(dy_RF, E, room);
  const [own, spare] = partsOf(x_RD, E, room).map((rows, i) => multiply(rows, dyParts[i] as tf.Tensor3D, true, false));
  if (!own) throw new Error('experts have no rows');
  if (!spare) return [dx_RD, own];
  const dw_EN = runKernel(
    'DowncycleScatterAdd',
    {base: tf.reshape(own, [E, D * F]), index: expert_S, rows: tf.reshape(spare, [room.blocks, D * F])},
    {},
  );
  return [dx_RD, tf.reshape(dw_EN, [E, D, F])];
}

/** Adds to each row the bias of its expert: [R, D] + [E, D] → [R, D]. */
export function addExpertBias(row_RD: tf.Tensor2D, bias_ED: tf.Tensor2D, {room, expert_S}: RowsByExpert): tf.Tensor2D {
  return tf.customGrad((...args) => {
    const [rows, bias, save] = args as [tf.Tensor2D, tf.Tensor2D, tf.GradSaveFunc];
    save([expert_S]);
    const bias_E1D: tf.Tensor3D = tf.expandDims(bias, 1);
    return {
      value: byPart(rows, room, matricesOf(bias_E1D, room, expert_S), (part, one) => tf.add(part, one)),
      gradFunc: (dy: tf.Tensor, [expert]: tf.Tensor[]) => {
        const dRows = dy as tf.Tensor2D;
        const [own, spare] = partsOf(dRows, bias.shape[0], room).map((part) => tf.sum(part, 1));
        if (!own) throw new Error('experts have no rows');
        if (!spare) return [dRows, own];
        const inputs = {base: own, index: expert as tf.Tensor, rows: spare};
        return [dRows, runKernel('DowncycleScatterAdd', inputs, {})];
      },
    };
  })(row_RD, bias_ED) as tf.Tensor2D;
}

/** The experts' matrices as they are, and those of the spare blocks if there are any. */
function matricesOf(w_EDF: tf.Tensor3D, {blocks}: ExpertRoom, expert_S: tf.Tensor1D): tf.Tensor3D[] {
  return blocks === 0 ? [w_EDF] : [w_EDF, tf.gather(w_EDF, expert_S)];
}

/** Rows as [E, C, ·], and the spare blocks as [S, H, ·] if there are any. */
export function partsOf(x_RD: tf.Tensor2D, E: number, {rows, blockRows, blocks}: ExpertRoom): tf.Tensor3D[] {
  const D = x_RD.shape[1];
  if (blocks === 0) return [tf.reshape(x_RD, [E, rows, D])];
  const [own, spare] = [E * rows, blocks * blockRows];
  return [
    tf.reshape(tf.slice(x_RD, [0, 0], [own, D]), [E, rows, D]),
    tf.reshape(tf.slice(x_RD, [own, 0], [spare, D]), [blocks, blockRows, D]),
  ];
}

function byPart(
  x_RD: tf.Tensor2D,
  room: ExpertRoom,
  parts: readonly tf.Tensor3D[],
  product: (rows: tf.Tensor3D, matrices: tf.Tensor3D) => tf.Tensor3D,
): tf.Tensor2D {
  const results = partsOf(x_RD, parts[0]?.shape[0] ?? 0, room).map((rows, i) => {
    const y = product(rows, parts[i] as tf.Tensor3D);
    return tf.reshape(y, [y.shape[0] * y.shape[1], y.shape[2]]) as tf.Tensor2D;
  });
  return tf.concat2d(results, 0);
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
