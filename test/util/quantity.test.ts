import {describe, expect, it} from 'vitest';
import {parseQuantity, quantity} from '../../src/util/quantity.js';

describe('a quantity', () => {
  it.each([
    ['4096', 4096],
    ['200k', 200_000],
    ['200 K', 200_000],
    ['1.5B', 1_500_000_000],
    ['1.1M', 1_100_000],
    ['2g', 2_000_000_000],
    ['3T', 3_000_000_000_000],
    ['10_000', 10_000],
  ])('%s is %d', (text, value) => {
    expect(parseQuantity(text)).toBe(value);
    expect(quantity.parse(text)).toBe(value);
  });

  it('may be a plain number', () => {
    expect(quantity.parse(128)).toBe(128);
  });

  it.each(['', 'many', '12kb', '-3', '1.5', '1.00001k', '0', '1e3', 'k'])('is not %o', (text) => {
    expect(quantity.safeParse(text).success).toBe(false);
  });

  it.each([0, -1, 1.5, Number.NaN, null, true])('is not %o', (value) => {
    expect(quantity.safeParse(value).success).toBe(false);
  });
});
