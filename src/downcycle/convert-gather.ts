// Rows and columns of matrices that stay as they are in the file, bit for bit.
import type {GluTree} from '../model/parameters.js';

/** A matrix of a GLU: a neuron is a row of gate and up [F, D], and a column of down [D, F]. */
export type GluMatrix = keyof GluTree<unknown>;

/** A row-major matrix in some dtype, of `elementBytes` (2, 4 or 8) an element. */
export interface RawMatrix {
  readonly bytes: Uint8Array;
  readonly rows: number;
  readonly columns: number;
  readonly elementBytes: number;
}

/** The bytes of some rows, in the order of `ids`. */
function gatherRows({bytes, columns, elementBytes}: RawMatrix, ids: Int32Array): Uint8Array {
  const rowBytes = columns * elementBytes;
  const gathered = new Uint8Array(ids.length * rowBytes);
  ids.forEach((id, i) => {
    gathered.set(bytes.subarray(id * rowBytes, (id + 1) * rowBytes), i * rowBytes);
  });
  return gathered;
}

/** The bytes of some columns, in the order of `ids`. */
function gatherColumns({bytes, rows, columns, elementBytes}: RawMatrix, ids: Int32Array): Uint8Array {
  const source = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const words = elementBytes / 2;
  const gathered = new Uint16Array(rows * ids.length * words);
  let to = 0;
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < ids.length; i++) {
      let from = (row * columns + (ids[i] as number)) * words;
      for (let word = 0; word < words; word++) gathered[to++] = source[from++] as number;
    }
  }
  return new Uint8Array(gathered.buffer);
}

/** The bytes of some neurons of a GLU's matrix, in the order of `ids`. */
export function gatherNeurons(matrix: RawMatrix, which: GluMatrix, ids: Int32Array): Uint8Array {
  return which === 'down' ? gatherColumns(matrix, ids) : gatherRows(matrix, ids);
}

/** The bytes of a GLU's matrix with those of some neurons replaced: the inverse of {@link gatherNeurons}. */
export function replaceNeurons(matrix: RawMatrix, which: GluMatrix, ids: Int32Array, part: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(matrix.bytes);
  if (which === 'down') scatterColumns({...matrix, bytes}, ids, part);
  else scatterRows({...matrix, bytes}, ids, part);
  return bytes;
}

function scatterRows({bytes, columns, elementBytes}: RawMatrix, ids: Int32Array, part: Uint8Array): void {
  const rowBytes = columns * elementBytes;
  ids.forEach((id, i) => {
    bytes.set(part.subarray(i * rowBytes, (i + 1) * rowBytes), id * rowBytes);
  });
}

function scatterColumns({bytes, rows, columns, elementBytes}: RawMatrix, ids: Int32Array, part: Uint8Array): void {
  const target = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const source = new Uint16Array(part.buffer, part.byteOffset, part.length / 2);
  const words = elementBytes / 2;
  let from = 0;
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < ids.length; i++) {
      let to = (row * columns + (ids[i] as number)) * words;
      for (let word = 0; word < words; word++) target[to++] = source[from++] as number;
    }
  }
}
