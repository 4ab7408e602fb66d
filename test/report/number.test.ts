import {describe, expect, it} from 'vitest';
import {formatCount, formatDuration, formatLoss, formatRate} from '../../src/report/number.js';

describe('number formats', () => {
  it.each([
    [0, '0'],
    [950, '950'],
    [1000, '1.00k'],
    [45_600, '45.6k'],
    [999_499, '999k'],
    [999_960, '1.00M'],
    [1_234_567, '1.23M'],
    [6.7e9, '6.70B'],
    [15e12, '15.0T'],
    [Number.NaN, '-'],
  ])('writes the count %d in three digits as %s', (value, text) => {
    expect(formatCount(value)).toBe(text);
  });

  it.each([
    [0.418, '0.42s'],
    [9.999, '10s'],
    [59.7, '1m 00s'],
    [80, '1m 20s'],
    [3599.6, '1h 00m'],
    [11_100, '3h 05m'],
    [187_200, '2d 04h'],
    [Number.POSITIVE_INFINITY, '-'],
  ])('writes %d seconds in its two largest units as %s', (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });

  it('says - for what was not measured', () => {
    expect([formatLoss(Number.NaN), formatRate(Number.NaN), formatDuration(Number.NaN)]).toEqual(['-', '-', '-']);
  });

  it('gives losses three decimals', () => {
    expect(formatLoss(3.41249)).toBe('3.412');
  });
});
