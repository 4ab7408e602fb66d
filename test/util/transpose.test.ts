import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {transpose} from '../../src/util/transpose.js';

describe('transpose', () => {
  it('puts element [r, c] at [c, r], whatever the sizes', () => {
    const size = fc.integer({min: 0, max: 70});
    fc.assert(
      fc.property(size, size, (rows, columns) => {
        const source = Float32Array.from({length: rows * columns}, (_, i) => i);
        const target = new Float32Array(source.length);
        transpose(source, rows, columns, target);
        const expected = Array.from(target, (_, i) => (i % rows) * columns + Math.floor(i / rows));
        expect(Array.from(target)).toEqual(expected);
      }),
      {numRuns: 40},
    );
  });

  it('puts a matrix together from runs of its rows', () => {
    const [rows, columns] = [37, 70];
    const source = Float32Array.from({length: rows * columns}, (_, i) => i);
    const [whole, pieces] = [new Float32Array(source.length), new Float32Array(source.length)];
    transpose(source, rows, columns, whole);
    for (const [begin, end] of [
      [0, 5],
      [5, 36],
      [36, 37],
    ] as const) {
      const piece = source.subarray(begin * columns, end * columns);
      transpose(piece, end - begin, columns, pieces, {firstRow: begin, allRows: rows});
    }
    expect(pieces).toEqual(whole);
    expect(() => transpose(source, rows, columns, whole, {firstRow: 1, allRows: rows})).toThrow(RangeError);
  });

  it('refuses sizes that do not fit', () => {
    expect(() => transpose(new Float32Array(6), 2, 2, new Float32Array(4))).toThrow(RangeError);
    expect(() => transpose(new Float32Array(4), 2, 2, new Float32Array(6))).toThrow(RangeError);
  });
});
