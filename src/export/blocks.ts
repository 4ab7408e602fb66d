// Stacked matrices, row-major, copied into larger ones.

/** Rows and columns of a matrix. */
export type Size = readonly [rows: number, columns: number];

/** Where in a stack of larger matrices a block goes. */
interface At {
  /** The first matrix; default 0. */
  readonly matrix?: number;
  readonly row?: number;
  readonly column?: number;
}

/** Copies `source`, matrices of one size, into as many matrices of `target` one after another, from a place on. */
export function putBlocks(
  target: Float32Array,
  [targetRows, targetColumns]: Size,
  source: Float32Array,
  [rows, columns]: Size,
  {matrix = 0, row = 0, column = 0}: At = {},
): void {
  const count = source.length / (rows * columns);
  for (let m = 0; m < count; m++) {
    for (let r = 0; r < rows; r++) {
      const from = (m * rows + r) * columns;
      const to = ((matrix + m) * targetRows + row + r) * targetColumns + column;
      target.set(source.subarray(from, from + columns), to);
    }
  }
}

/** Stacked matrices with zeros appended to their rows and columns. */
export function padBlocks(source: Float32Array, [rows, columns]: Size, [toRows, toColumns]: Size): Float32Array {
  if (rows === toRows && columns === toColumns) return source;
  const target = new Float32Array((source.length / (rows * columns)) * toRows * toColumns);
  putBlocks(target, [toRows, toColumns], source, [rows, columns]);
  return target;
}
