import * as tf from '../../tfjs.js';
import type {WasmKernel} from './register.js';

/** Row by row on the host (Cholesky-Banachiewicz), in float64. */
export const cholesky: WasmKernel = ({a}) => {
  if (!a) throw new Error('Cholesky needs a');
  return tf.tensor(Float32Array.from(factor(a.dataSync(), a.shape[0] ?? 0)), a.shape);
};

/** `(a + shift·I)·x = b` by forward and backward substitution, in float64; disposes its inputs. */
export const choleskySolve: WasmKernel = ({b, ...panels}, {shift}) => {
  if (!b) throw new Error('a solve needs b');
  const [N = 0, M = 0] = b.shape;
  const a_NN = lowerHalf(panels, N);
  for (let i = 0; i < N; i++) a_NN[i * N + i] = (a_NN[i * N + i] as number) + Number(shift);
  const l_NN = factor(a_NN, N);
  const x_NM = Float64Array.from(b.dataSync());
  for (let i = 0; i < N; i++) substitute(l_NN, x_NM, {N, M, i, from: 0, to: i, at: (j) => i * N + j});
  for (let i = N - 1; i >= 0; i--) substitute(l_NN, x_NM, {N, M, i, from: i + 1, to: N, at: (j) => j * N + i});
  b.dispose();
  return tf.tensor(Float32Array.from(x_NM), [N, M]);
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

/** Panels `a0`, `a1` ... at their places in [N, N]; what is above them stays zero. */
function lowerHalf(panels: Readonly<Record<string, tf.Tensor>>, N: number): Float64Array {
  const a_NN = new Float64Array(N * N);
  let first = 0;
  for (let p = 0; panels[`a${p}`]; p++) {
    const panel = panels[`a${p}`] as tf.Tensor;
    const width = panel.shape[1] ?? 0;
    const values = panel.dataSync();
    panel.dispose();
    for (let i = first; i < N; i++) {
      a_NN.set(values.subarray((i - first) * width, (i - first + 1) * width), i * N + first);
    }
    first += width;
  }
  return a_NN;
}

/** L of a matrix whose lower half is looked at. */
function factor(values: ArrayLike<number>, N: number): Float64Array {
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
