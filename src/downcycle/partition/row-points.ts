// Neurons as points: rows of a matrix that has one for each neuron. Shapes: F neurons, N of them, D columns, P projected.
import type {Points} from '../balanced-k-means.js';
import {MOST_COLUMNS, randomDirections} from '../random-projection.js';

/**
 * The rows of some neurons out of float32 [F, D], of length one if asked for; a row of zeros stays.
 *
 * More columns than {@link MOST_COLUMNS} are projected to so many: a round of k-means in E clusters costs N·E·D, and 20
 * rounds of 11,008 rows of 4,096 columns in 64 clusters would be 58 billion multiply-adds a layer. Projecting them costs
 * N·D·P, 6 billion, and leaves 2 billion to the rounds.
 */
export function rowPoints(
  row_FD: Float32Array,
  numNeurons: number,
  ids: Int32Array,
  {normalise}: {readonly normalise: boolean},
): Points {
  const D = row_FD.length / numNeurons;
  const direction_DP = D > MOST_COLUMNS ? randomDirections(D, 'row-points') : null;
  const numFeatures = direction_DP ? MOST_COLUMNS : D;
  const value_NJ = new Float64Array(ids.length * numFeatures);
  ids.forEach((id, n) => {
    const row_D = row_FD.subarray(id * D, (id + 1) * D);
    const out_P = value_NJ.subarray(n * numFeatures, (n + 1) * numFeatures);
    if (direction_DP) project(row_D, direction_DP, out_P);
    else out_P.set(row_D);
    if (normalise) scale(out_P, 1 / (lengthOf(row_D) || 1));
  });
  return {value_NJ, numFeatures};
}

function project(row_D: Float32Array, direction_DP: Float32Array, out_P: Float64Array): void {
  const P = out_P.length;
  for (let d = 0, at = 0; d < row_D.length; d++) {
    const x = row_D[d] as number;
    for (let p = 0; p < P; p++, at++) out_P[p] = (out_P[p] as number) + x * (direction_DP[at] as number);
  }
}

function scale(values: Float64Array, factor: number): void {
  for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * factor;
}

function lengthOf(row_D: Float32Array): number {
  let sum = 0;
  for (let d = 0; d < row_D.length; d++) sum += (row_D[d] as number) ** 2;
  return Math.sqrt(sum);
}
