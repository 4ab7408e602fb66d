import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {along, type CurvePoint, firstReach, lossAt, seedBand, smooth, thin} from '../../src/report/curve.js';

const points = (losses: readonly number[]): CurvePoint[] =>
  losses.map((loss, i) => ({step: i, tokens: 100 * i, flops: 1e6 * i, loss}));
const xy = (...pairs: [number, number][]): {x: number; loss: number}[] => pairs.map(([x, loss]) => ({x, loss}));

describe('smooth', () => {
  it('equals the weighted mean of all values so far, with weights that shrink by the factor', () => {
    const losses = [5, 3, 4, 1];
    const expected = losses.map((_, t) => {
      const weights = losses.slice(0, t + 1).map((_, i) => 0.7 ** (t - i));
      const sum = weights.reduce((a, w, i) => a + w * losses[i]!, 0);
      return sum / weights.reduce((a, b) => a + b, 0);
    });
    expect(smooth(points(losses), 0.7).map(({loss}) => loss)).toBeAllClose(expected, {atol: 1e-12});
  });

  it('changes nothing without smoothing', () => {
    expect(smooth(points([5, 3, 4]), 0)).toEqual(points([5, 3, 4]));
  });

  it('keeps a constant loss constant from the first point on', () => {
    const smoothed = smooth(points([2, 2, 2, 2]), 0.99).map(({loss}) => loss);
    expect(smoothed).toBeAllClose([2, 2, 2, 2], {atol: 1e-12});
  });
});

describe('along', () => {
  it('takes the axis that is asked for', () => {
    expect(along(points([5, 4]), 'flops')).toEqual(xy([0, 5], [1e6, 4]));
    expect(along(points([5, 4]), 'steps')).toEqual(xy([0, 5], [1, 4]));
  });

  it('leaves out losses that are not numbers and keeps the last of a repeated step, in ascending order', () => {
    const [a, b, c] = points([5, Number.NaN, 3]) as [CurvePoint, CurvePoint, CurvePoint];
    expect(along([c, b, a, {...a, loss: 4}], 'tokens')).toEqual(xy([0, 4], [200, 3]));
  });
});

describe('seedBand', () => {
  it('gives mean, least and greatest of the seeds, interpolating where a seed has no point', () => {
    const band = seedBand([xy([0, 4], [10, 2], [20, 1]), xy([0, 6], [20, 2])]);
    expect(band).toEqual([
      {x: 0, loss: 5, low: 4, high: 6},
      {x: 10, loss: 3, low: 2, high: 4},
      {x: 20, loss: 1.5, low: 1, high: 2},
    ]);
  });

  it('covers only what all seeds cover', () => {
    const band = seedBand([xy([0, 4], [10, 3], [20, 2]), xy([5, 4], [10, 3])]);
    expect(band.map(({x}) => x)).toEqual([5, 10]);
  });

  it('is the curve itself, without width, for one seed', () => {
    expect(seedBand([xy([0, 4], [10, 2])])).toEqual([
      {x: 0, loss: 4, low: 4, high: 4},
      {x: 10, loss: 2, low: 2, high: 2},
    ]);
  });
});

describe('firstReach', () => {
  it('interpolates between the points around the crossing', () => {
    expect(firstReach(xy([0, 5], [100, 4], [200, 2]), 3)).toBe(150);
  });

  it('is the first point if that is low enough, and null if no point is', () => {
    expect(firstReach(xy([7, 3], [100, 2]), 3)).toBe(7);
    expect(firstReach(xy([0, 5], [100, 4]), 3)).toBeNull();
    expect(firstReach([], 3)).toBeNull();
  });

  it('is where the interpolated curve has that loss, and nowhere before is it lower', () => {
    const losses = fc.array(fc.integer({min: 100, max: 800}), {minLength: 2, maxLength: 20});
    fc.assert(
      fc.property(losses, fc.integer({min: 100, max: 800}), (values, target) => {
        const curve = values.map((loss, i) => ({x: i, loss}));
        const x = firstReach(curve, target);
        if (x === null) {
          expect(Math.min(...values)).toBeGreaterThan(target);
          return;
        }
        if (x > 0) expect(lossAt(curve, x)).toBeCloseTo(target, 6);
        for (const point of curve) if (point.x < x) expect(point.loss).toBeGreaterThan(target);
      }),
    );
  });
});

describe('lossAt', () => {
  it('holds the ends outside the curve and is not a number without points', () => {
    expect(lossAt(xy([1, 5], [2, 3]), 0)).toBe(5);
    expect(lossAt(xy([1, 5], [2, 3]), 9)).toBe(3);
    expect(lossAt([], 1)).toBeNaN();
  });
});

describe('thin', () => {
  it('keeps the ends, the order and the limit', () => {
    const kept = thin(
      Array.from({length: 1001}, (_, i) => i),
      5,
    );
    expect(kept).toEqual([0, 250, 500, 750, 1000]);
  });

  it('leaves short curves as they are', () => {
    expect(thin([1, 2, 3], 3)).toEqual([1, 2, 3]);
  });
});
