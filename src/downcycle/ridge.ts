// How much of each neuron's activity |h_i|·|Wd_i| the input of its FFN foresees.
// Shapes: D model width, F neurons, T tokens, K sums of neurons, P directions.
import * as tf from '../engine/tfjs.js';
import {gluHidden} from '../model/glu.js';
import type {GluTree} from '../model/parameters.js';
import {cholesky, choleskySolve, lowerPanels} from '../op/cholesky.js';
import {matMul} from '../op/mat-mul.js';
import {addTo} from './statistics.js';

/** Ridge added to the covariance, as a share of its mean diagonal: a lesser one fits the calibration text (docs/log.md). */
const RIDGE = 0.3;
/** Added where a factor is taken of the covariance itself, which a few directions may not span. */
const JITTER = 1e-4;

/** Sums over tokens of FFN inputs x and activities a, of F neurons or of as many sums of neurons; those of batches add up. */
export interface ActivitySums {
  readonly count: number;
  readonly x_D: Float64Array;
  readonly xx_DD: Float64Array;
  readonly a_F: Float64Array;
  readonly xa_DF: Float64Array;
}

/** Sums of activities as linear functions of the input. */
export interface ActivityModel {
  /** float32 [D, K] */
  readonly weight_DK: tf.Tensor2D;
  /** float32 [K] */
  readonly intercept_K: tf.Tensor1D;
}

/** No tokens yet. */
export function noSums(D: number, F: number): ActivitySums {
  return {
    count: 0,
    x_D: new Float64Array(D),
    xx_DD: new Float64Array(D * D),
    a_F: new Float64Array(F),
    xa_DF: new Float64Array(D * F),
  };
}

/** The sums of a batch, in a compiled function; those of the neurons with a 1 in a row of `member_KF` if it is given. */
export function batchSums(
  x_TD: tf.Tensor2D,
  ffn: GluTree<tf.Tensor2D>,
  member_KF?: tf.Tensor2D,
): Readonly<Record<Exclude<keyof ActivitySums, 'count'>, tf.Tensor>> {
  const each_TF = tf.mul(tf.abs(gluHidden(x_TD, ffn)), tf.norm(ffn.down, 'euclidean', 1)) as tf.Tensor2D;
  const a_TF = member_KF ? matMul(each_TF, member_KF, {transposeB: true}) : each_TF;
  return {
    x_D: tf.sum(x_TD, 0),
    xx_DD: matMul(x_TD, x_TD, {transposeA: true}),
    a_F: tf.sum(a_TF, 0),
    xa_DF: matMul(x_TD, a_TF, {transposeA: true}),
  };
}

/** Adds a batch of `count` tokens to sums, in place. */
export function addSums(
  sums: ActivitySums,
  count: number,
  batch: Readonly<Record<Exclude<keyof ActivitySums, 'count'>, Float32Array>>,
): ActivitySums {
  for (const key of ['x_D', 'xx_DD', 'a_F', 'xa_DF'] as const) {
    addTo(sums[key], batch[key]);
  }
  return {...sums, count: sums.count + count};
}

/** Ridge regression of every activity on [x, 1]: `(Cov x + λ mean diag) w = Cov(x, a)`; the caller disposes. */
export function fitActivity(sums: ActivitySums): ActivityModel {
  return fitColumns(sums, (columns) => columns);
}

/**
 * {@link fitActivity} of K sums of activities, of the neurons with a 1 in a row of `member_KF`.
 *
 * Regression is linear, so this is the sum of what is foreseen of the neurons, without a solve for each of them.
 */
export function fitSums(sums: ActivitySums, member_KF: tf.Tensor2D): ActivityModel {
  return fitColumns(sums, (column_NF) => matMul(column_NF, member_KF, {transposeB: true}));
}

/** `combine` makes K columns out of those of the F activities. */
function fitColumns(sums: ActivitySums, combine: (column_NF: tf.Tensor2D) => tf.Tensor2D): ActivityModel {
  const {count, x_D, a_F} = sums;
  const mean = (sum_N: Float64Array): tf.Tensor2D =>
    tf.tensor2d(
      Float32Array.from(sum_N, (sum) => sum / count),
      [1, sum_N.length],
    );
  return tf.tidy(() => {
    const cross_DK = inBlocks(x_D.length, (rows) => combine(crossCovariance(sums, rows, {from: 0, to: a_F.length})));
    const weight_DK = choleskySolve(lowerPanels(covariance(sums, RIDGE)), cross_DK);
    const mean_1K = combine(mean(a_F));
    const intercept_K = tf.reshape(tf.sub(mean_1K, matMul(mean(x_D), weight_DK)), [weight_DK.shape[1]]);
    return {weight_DK, intercept_K: intercept_K as tf.Tensor1D};
  });
}

/**
 * What is foreseen of every neuron, as a point: distances of points are those of predictions over the calibration text,
 * for with `Cov x = L·Lᵀ` the variance of `x·w` is `|Lᵀ·w|²`. Points are the rows of `Wᵀ·L·directions`, where column i of W
 * is what {@link fitActivity} gives for neuron i alone; solved for is `L·directions`, which is narrower. [F, P]; the caller
 * disposes.
 *
 * @param direction_DP null for the points themselves.
 */
export function predictedProfiles(sums: ActivitySums, direction_DP: tf.Tensor2D | null): tf.Tensor2D {
  return tf.tidy(() => {
    const l_DD = cholesky(covariance(sums, JITTER));
    const onto_DP = direction_DP ? matMul(l_DD, direction_DP) : l_DD;
    const solved_DP = choleskySolve(lowerPanels(covariance(sums, RIDGE)), onto_DP);
    const all = {from: 0, to: sums.x_D.length};
    return inBlocks(sums.a_F.length, (columns) =>
      matMul(crossCovariance(sums, all, columns), solved_DP, {transposeA: true}),
    );
  });
}

/** A range of rows or columns. */
interface Range {
  readonly from: number;
  readonly to: number;
}

/** Rows of a block: of a matrix [D, F] only so much is there as tensors at once. */
const BLOCK = 256;

/** The rows that `make` gives for one range after another. */
function inBlocks(numRows: number, make: (rows: Range) => tf.Tensor2D): tf.Tensor2D {
  const ranges = Array.from({length: Math.ceil(numRows / BLOCK)}, (_, b) => ({
    from: b * BLOCK,
    to: Math.min((b + 1) * BLOCK, numRows),
  }));
  return tf.tidy(() =>
    tf.concat2d(
      ranges.map((range) => tf.tidy(() => make(range))),
      0,
    ),
  );
}

function covariance({count, x_D, xx_DD}: ActivitySums, ridge: number): tf.Tensor2D {
  const D = x_D.length;
  const covariance_DD = new Float32Array(D * D);
  let trace = 0;
  for (let i = 0; i < D; i++) {
    for (let j = 0; j < D; j++) {
      const at = i * D + j;
      covariance_DD[at] = (xx_DD[at] as number) / count - ((x_D[i] as number) / count) * ((x_D[j] as number) / count);
    }
    trace += covariance_DD[i * D + i] as number;
  }
  for (let i = 0; i < D; i++) covariance_DD[i * D + i] = (covariance_DD[i * D + i] as number) + (ridge * trace) / D;
  return tf.tensor2d(covariance_DD, [D, D]);
}

/** Some rows and columns of Cov(x, a). */
function crossCovariance({count, x_D, a_F, xa_DF}: ActivitySums, rows: Range, columns: Range): tf.Tensor2D {
  const F = a_F.length;
  const [numRows, numColumns] = [rows.to - rows.from, columns.to - columns.from];
  const cross = new Float32Array(numRows * numColumns);
  for (let i = rows.from, at = 0; i < rows.to; i++) {
    const mean = (x_D[i] as number) / count;
    for (let f = columns.from; f < columns.to; f++, at++) {
      cross[at] = (xa_DF[i * F + f] as number) / count - mean * ((a_F[f] as number) / count);
    }
  }
  return tf.tensor2d(cross, [numRows, numColumns]);
}
