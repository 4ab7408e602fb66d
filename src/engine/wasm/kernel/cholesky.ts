import * as tf from '@tensorflow/tfjs';
import type {WasmKernel} from './register.js';

/** Row by row on the host (Cholesky-Banachiewicz), in float64. */
export const cholesky: WasmKernel = ({a}) => {
  if (!a) throw new Error('Cholesky needs a');
  return tf.tensor(Float32Array.from(factor(a)), a.shape);
};

/** `a·x = b` by forward and backward substitution, in float64. */
export const choleskySolve: WasmKernel = ({a, b}) => {
  if (!a || !b) throw new Error('a solve needs a and b');
  const [N = 0, M = 0] = b.shape;
  const l_NN = factor(a);
  const x_NM = Float64Array.from(b.dataSync());
  for (let i = 0; i < N; i++) substitute(l_NN, x_NM, {N, M, i, from: 0, to: i, at: (j) => i * N + j});
  for (let i = N - 1; i >= 0; i--) substitute(l_NN, x_NM, {N, M, i, from: i + 1, to: N, at: (j) => j * N + i});
  return tf.tensor(Float32Array.from(x_NM), b.shape);
};

interface Substitution {
  readonly N: number;
  readonly M: number;
  /** Row of x that is found from its rows `from` to `to`. */
  readonly i: number;
  readonly from: number;
  readonly to: number;
  /** Where L holds the factor of row j. */
  readonly at: (j: number) => number;
}

function substitute(l_NN: Float64Array, x_NM: Float64Array, {N, M, i, from, to, at}: Substitution): void {
  const row_M = x_NM.subarray(i * M, (i + 1) * M);
  for (let j = from; j < to; j++) {
    const factorOfRow = l_NN[at(j)] as number;
    for (let m = 0; m < M; m++) row_M[m] = (row_M[m] as number) - factorOfRow * (x_NM[j * M + m] as number);
  }
  const diagonal = l_NN[i * N + i] as number;
  for (let m = 0; m < M; m++) row_M[m] = (row_M[m] as number) / diagonal;
}

function factor(a: tf.Tensor): Float64Array {
  const N = a.shape[0] ?? 0;
  const values = a.dataSync();
  const l_NN = new Float64Array(N * N);
  for (let i = 0; i < N; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = values[i * N + j] as number;
      for (let k = 0; k < j; k++) sum -= (l_NN[i * N + k] as number) * (l_NN[j * N + k] as number);
      l_NN[i * N + j] = i === j ? Math.sqrt(sum) : sum / (l_NN[j * N + j] as number);
    }
  }
  return l_NN;
}
