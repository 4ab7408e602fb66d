// How much of each neuron's activity |h_i|·|Wd_i| the input of its FFN foresees. Shapes: D model width, F neurons, T tokens.
import * as tf from '@tensorflow/tfjs';
import {gluHidden} from '../model/glu.js';
import type {GluTree} from '../model/parameters.js';
import {cholesky, choleskySolve} from '../op/cholesky.js';
import {matMul} from '../op/mat-mul.js';
import {addTo} from './statistics.js';

/** Ridge added to the covariance, as a share of its mean diagonal: a lesser one fits the calibration text (docs/log.md). */
const RIDGE = 0.3;
/** Added where a factor is taken of the covariance itself, which a few directions may not span. */
const JITTER = 1e-4;

/** Sums over tokens of FFN inputs x and activities a; those of some batches can be added up. */
export interface ActivitySums {
  readonly count: number;
  readonly x_D: Float64Array;
  readonly xx_DD: Float64Array;
  readonly a_F: Float64Array;
  readonly xa_DF: Float64Array;
}

/** Activity of every neuron as a linear function of the input. */
export interface ActivityModel {
  /** float32 [D, F] */
  readonly weight_DF: tf.Tensor2D;
  /** float32 [F] */
  readonly intercept_F: tf.Tensor1D;
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

/** The sums of a batch, in a compiled function. */
export function batchSums(
  x_TD: tf.Tensor2D,
  ffn: GluTree<tf.Tensor2D>,
): Readonly<Record<Exclude<keyof ActivitySums, 'count'>, tf.Tensor>> {
  const a_TF = tf.mul(tf.abs(gluHidden(x_TD, ffn)), tf.norm(ffn.down, 'euclidean', 1)) as tf.Tensor2D;
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

/** Ridge regression of every neuron's activity on [x, 1]: `(Cov x + λ mean diag) w = Cov(x, a)`; the caller disposes. */
export function fitActivity(sums: ActivitySums): ActivityModel {
  const {count, x_D, a_F} = sums;
  return tf.tidy(() => {
    const weight_DF = choleskySolve(covariance(sums, RIDGE), crossCovariance(sums));
    const mean_1D = tf.tensor2d(
      Float32Array.from(x_D, (sum) => sum / count),
      [1, x_D.length],
    );
    const mean_F = tf.tensor1d(Float32Array.from(a_F, (sum) => sum / count));
    const intercept_F = tf.sub(mean_F, tf.reshape(matMul(mean_1D, weight_DF), [a_F.length]));
    return {weight_DF, intercept_F} as {weight_DF: tf.Tensor2D; intercept_F: tf.Tensor1D};
  });
}

/**
 * What is foreseen of every neuron, as a point: distances of points are those of predictions over the calibration text,
 * for with `Cov x = L·Lᵀ` the variance of `x·w` is `|Lᵀ·w|²`. [F, D]; the caller disposes.
 */
export function predictedProfiles(sums: ActivitySums, {weight_DF}: ActivityModel): tf.Tensor2D {
  return tf.tidy(() => matMul(weight_DF, cholesky(covariance(sums, JITTER)), {transposeA: true}));
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

function crossCovariance({count, x_D, a_F, xa_DF}: ActivitySums): tf.Tensor2D {
  const [D, F] = [x_D.length, a_F.length];
  const cross_DF = new Float32Array(D * F);
  for (let i = 0; i < D; i++) {
    const mean = (x_D[i] as number) / count;
    for (let f = 0; f < F; f++)
      cross_DF[i * F + f] = (xa_DF[i * F + f] as number) / count - mean * ((a_F[f] as number) / count);
  }
  return tf.tensor2d(cross_DF, [D, F]);
}
