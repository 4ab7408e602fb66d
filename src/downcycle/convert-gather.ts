// Rows and columns of matrices that stay as they are in the file, bit for bit.

/** A row-major matrix in some dtype, of `elementBytes` (2, 4 or 8) an element. */
export interface RawMatrix {
  readonly bytes: Uint8Array;
  readonly rows: number;
  readonly columns: number;
  readonly elementBytes: number;
}

/** The bytes of some rows, in the order of `ids`. */
export function gatherRows({bytes, columns, elementBytes}: RawMatrix, ids: Int32Array): Uint8Array {
  const rowBytes = columns * elementBytes;
  const gathered = new Uint8Array(ids.length * rowBytes);
  ids.forEach((id, i) => {
    gathered.set(bytes.subarray(id * rowBytes, (id + 1) * rowBytes), i * rowBytes);
  });
  return gathered;
}

/** The bytes of some columns, in the order of `ids`. */
export function gatherColumns({bytes, rows, columns, elementBytes}: RawMatrix, ids: Int32Array): Uint8Array {
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
