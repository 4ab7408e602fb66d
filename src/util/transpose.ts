/** Rows and columns of a block: two of them in float32 fit into the fastest cache. */
const BLOCK = 32;

/** Where rows stand in a taller matrix. */
interface Place {
  /** Row of the taller matrix that the first one is. */
  readonly firstRow: number;
  /** Rows of the taller matrix. */
  readonly allRows: number;
}

/**
 * Writes `source` [rows, columns] into `target` as [columns, rows], block by block so that neither side is walked in long
 * strides. With a place, `source` is some rows of a taller matrix, and `target` is all of that transposed.
 */
export function transpose(
  source: Float32Array,
  rows: number,
  columns: number,
  target: Float32Array,
  {firstRow, allRows}: Place = {firstRow: 0, allRows: rows},
): void {
  if (source.length !== rows * columns || target.length !== allRows * columns || firstRow + rows > allRows) {
    throw new RangeError(`${source.length} numbers into ${target.length} cannot be [${rows}, ${columns}] transposed`);
  }
  const shifted = target.subarray(firstRow);
  for (let r = 0; r < rows; r += BLOCK) {
    const rowEnd = Math.min(r + BLOCK, rows);
    for (let c = 0; c < columns; c += BLOCK) {
      transposeBlock(source, allRows, columns, shifted, r, rowEnd, c, Math.min(c + BLOCK, columns));
    }
  }
}

/** A transposed copy of `source` [rows, columns]. */
export function transposed(source: Float32Array, rows: number, columns: number): Float32Array {
  const target = new Float32Array(source.length);
  transpose(source, rows, columns, target);
  return target;
}

function transposeBlock(
  source: Float32Array,
  stride: number,
  columns: number,
  target: Float32Array,
  rowBegin: number,
  rowEnd: number,
  columnBegin: number,
  columnEnd: number,
): void {
  for (let c = columnBegin; c < columnEnd; c++) {
    for (let r = rowBegin; r < rowEnd; r++) target[c * stride + r] = source[r * columns + c] as number;
  }
}
