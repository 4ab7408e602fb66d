import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {createPermutation} from '../../src/util/permutation.js';

function sequence(size: number, seed = 1, purpose = 'p'): number[] {
  return Array.from({length: size}, (_, i) => i).map(createPermutation(size, seed, purpose));
}

describe('a permutation', () => {
  it('has every number once, at every size from 1 to 2000', () => {
    for (let size = 1; size <= 2000; size++) {
      const seen = new Uint8Array(size);
      for (const value of sequence(size, size)) seen[value] = 1;
      expect(seen.indexOf(0), `size ${size}`).toBe(-1);
      expect(seen.length, `size ${size}`).toBe(size);
    }
  });

  it.each([65_535, 65_537, 262_144, 1_000_003])('has every number once at size %i', (size) => {
    const at = createPermutation(size, 3, 'large');
    const seen = new Uint8Array(size);
    for (let i = 0; i < size; i++) seen[at(i)] = 1;
    expect(seen.indexOf(0)).toBe(-1);
  });

  it('stays below sizes beyond 32 bits, and never gives two the same', () => {
    for (const size of [2 ** 32 + 1, 10 ** 12, 2 ** 52]) {
      const at = createPermutation(size, 3, 'huge');
      const values = Array.from({length: 5000}, (_, i) => at(size - 1 - i));
      expect(values.every((value) => Number.isInteger(value) && value >= 0 && value < size)).toBe(true);
      expect(new Set(values).size).toBe(5000);
      expect(Math.max(...values)).toBeGreaterThan(0.99 * size);
    }
  });

  it('is the same for the same seed and purpose, and another for others', () => {
    fc.assert(
      fc.property(fc.integer({min: 30, max: 500}), fc.nat(), (size, seed) => {
        expect(sequence(size, seed)).toEqual(sequence(size, seed));
        expect(sequence(size, seed + 1)).not.toEqual(sequence(size, seed));
        expect(sequence(size, seed, 'q')).not.toEqual(sequence(size, seed));
      }),
    );
  });

  it.each([2, 5, 24])('puts each of %i numbers at each place equally often (chi squared)', (size) => {
    const runs = 4000;
    const counts = new Float64Array(size * size);
    for (let seed = 0; seed < runs; seed++) {
      for (const [i, value] of sequence(size, seed).entries())
        counts[i * size + value] = (counts[i * size + value] ?? 0) + 1;
    }
    const expected = runs / size;
    const chi = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    const freedom = (size - 1) ** 2;
    expect(chi).toBeLessThan(freedom + 4 * Math.sqrt(2 * freedom) + 4);
  });

  it('leaves neighbours as far apart as chance does', () => {
    const size = 10_000;
    const values = sequence(size);
    const apart = values.slice(1).map((value, i) => Math.abs(value - (values[i] ?? 0)));
    const mean = apart.reduce((sum, distance) => sum + distance, 0) / apart.length;
    expect(Math.abs(mean / size - 1 / 3)).toBeLessThan(4 * Math.sqrt(1 / 18 / size));
  });
});
