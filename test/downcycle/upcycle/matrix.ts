import type {StoredMatrix} from '../../../src/downcycle/convert-source.js';
import {DTYPE_BYTES, type FloatDtype, narrow, widen} from '../../../src/format/dtype.js';
import {createRng} from '../../../src/util/rng.js';

/** A matrix of normal numbers, mean 0.3 and std 0.7, in some dtype. */
export function normalMatrix(rows: number, columns: number, dtype: FloatDtype = 'F32'): StoredMatrix {
  const rng = createRng(3, `${rows}x${columns}`);
  const values = Float32Array.from({length: rows * columns}, () => 0.3 + 0.7 * rng.normal());
  return {bytes: new Uint8Array(narrow(values, dtype)), rows, columns, elementBytes: DTYPE_BYTES[dtype], dtype};
}

/** The weights of each neuron of a matrix: rows of gate and up, columns of down. */
export function neuronsOf({rows, columns, dtype}: StoredMatrix, bytes: Uint8Array, which: string): number[][] {
  const values = widen(bytes, dtype);
  const at = (row: number, column: number): number => values[row * columns + column]!;
  return which === 'down'
    ? Array.from({length: columns}, (_, f) => Array.from({length: rows}, (_, d) => at(d, f)))
    : Array.from({length: rows}, (_, f) => Array.from({length: columns}, (_, d) => at(f, d)));
}

/** The neurons in which two versions of a matrix differ. */
export function changedNeurons(matrix: StoredMatrix, after: Uint8Array, which: string): number[] {
  const [a, b] = [matrix.bytes, after].map((bytes) => neuronsOf(matrix, bytes, which));
  return a!.flatMap((neuron, f) => (neuron.every((weight, d) => Object.is(weight, b![f]![d])) ? [] : [f]));
}
