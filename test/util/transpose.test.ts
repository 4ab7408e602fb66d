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

  it('refuses sizes that do not fit', () => {
    expect(() => transpose(new Float32Array(6), 2, 2, new Float32Array(4))).toThrow(RangeError);
    expect(() => transpose(new Float32Array(4), 2, 2, new Float32Array(6))).toThrow(RangeError);
  });
});
