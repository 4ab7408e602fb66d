import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {averageLinkage} from '../../../src/downcycle/dive/average-linkage.js';

/** Points on a line. */
const distances = (points: readonly number[]): number[][] => points.map((a) => points.map((b) => Math.abs(a - b)));

/** Makes the last two of five items one place to themselves, and leaves their distances to others. */
const joinLast = (row: number[], i: number): number[] => row.map((value, j) => (i + j === 7 ? 0 : value));

describe('averageLinkage', () => {
  it('joins what lies nearest, by the mean of all distances', () => {
    const points = [5, 0, 3.2, 7, 1];
    expect(averageLinkage(distances(points), 5)).toEqual([[0], [1], [2], [3], [4]]);
    expect(averageLinkage(distances(points), 4)).toEqual([[0], [1, 4], [2], [3]]);
    expect(averageLinkage(distances(points), 3)).toEqual([[0, 2], [1, 4], [3]]);
    // 3 lies nearer to 5 than to 0 or 1, but farther from 5 and 9 in the mean.
    expect(averageLinkage(distances([0, 1, 3.1, 5, 9]).map(joinLast), 2)).toEqual([
      [0, 1, 2],
      [3, 4],
    ]);
    expect(averageLinkage(distances(points), 1)).toEqual([[0, 1, 2, 3, 4]]);
  });

  it('joins the first pair among equals', () => {
    expect(averageLinkage(distances([0, 1, 2, 3]), 3)).toEqual([[0, 1], [2], [3]]);
    expect(averageLinkage(distances([4, 4, 4]), 2)).toEqual([[0, 1], [2]]);
  });

  it('puts every item into one cluster, of as many as are asked for', () => {
    const points = fc.array(fc.double({min: 0, max: 1, noNaN: true}), {minLength: 1, maxLength: 9});
    fc.assert(
      fc.property(points, fc.nat(8), (some, less) => {
        const count = Math.max(1, some.length - less);
        const clusters = averageLinkage(distances(some), count);
        expect(clusters).toHaveLength(count);
        expect(clusters.flat().sort((a, b) => a - b)).toEqual([...some.keys()]);
        expect(clusters.map(([first]) => first)).toEqual(clusters.map(([first]) => first!).sort((a, b) => a - b));
      }),
    );
  });

  it('does not depend on the order of items', () => {
    const items = fc.uniqueArray(fc.integer({min: 0, max: 10_000}), {minLength: 2, maxLength: 8});
    fc.assert(
      fc.property(items, fc.integer({min: 1, max: 7}), (values, wanted) => {
        const points = values.map((value) => value ** 1.37); // no two distances alike
        const order = [...points.keys()].sort((a, b) => values[a]! - values[b]!);
        const count = Math.min(wanted, points.length);
        const as = (clusters: number[][], name: (i: number) => number): string[] =>
          clusters.map((cluster) => String(cluster.map(name).sort((a, b) => a - b))).sort();
        const sorted = averageLinkage(distances(order.map((i) => points[i]!)), count);
        expect(as(sorted, (i) => order[i]!)).toEqual(as(averageLinkage(distances(points), count), (i) => i));
      }),
    );
  });
});
