import {readFileSync} from 'node:fs';
import {describe, expect, it} from 'vitest';
import {affinityOf, normalised, pearson} from '../../../src/downcycle/dive/affinity.js';

/** What NumPy and SciPy make of some matrices: scripts/affinity-fixtures.py. */
const CASES = JSON.parse(readFileSync(new URL('../../fixtures/downcycle/affinity.json', import.meta.url), 'utf8')) as {
  perplexity: number[][];
  correlation: number[][];
  labels: Record<string, number[]>;
}[];

/** Clusters of labels, in the order of their first item. */
function clustersOf(labels: readonly number[]): number[][] {
  return [...new Set(labels)].map((label) => labels.flatMap((other, item) => (other === label ? [item] : [])));
}

describe('affinityOf', () => {
  it.each(CASES)('agrees with SciPy at every number of clusters', ({perplexity, correlation, labels}) => {
    for (const [count, expected] of Object.entries(labels)) {
      const affinity = affinityOf(perplexity, Number(count));
      expect(affinity.correlation).toBeAllClose(correlation, {rtol: 0, atol: 1e-12});
      expect(affinity.clusters, `${count} clusters`).toEqual(clustersOf(expected));
      expect(affinity.perplexity).toBe(perplexity);
    }
  });

  it('gives each task its own cluster where there are as many', () => {
    expect(affinityOf([[3]], 1)).toEqual({perplexity: [[3]], correlation: [[1]], clusters: [[0]]});
    expect(affinityOf(CASES[0]!.perplexity, 4).clusters).toEqual([[0], [1], [2], [3]]);
  });

  it('clusters models that are all alike, too', () => {
    const alike = [1, 2, 3].map(() => [20, 30, 40]);
    expect(affinityOf(alike, 2)).toMatchObject({
      correlation: [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
      ],
      clusters: [[0, 1], [2]],
    });
  });
});

describe('normalised', () => {
  it('is 1 for the model that foretells a text best, and falls with perplexity, whatever the text', () => {
    const perplexity = [
      [10, 400],
      [20, 100],
    ];
    expect(normalised(perplexity)).toEqual([
      [1, 0.25],
      [0.5, 1],
    ]);
    expect(normalised(perplexity.map(([a, b]) => [a! * 7, b! * 3]))).toBeAllClose([1, 0.25, 0.5, 1]);
  });
});

describe('pearson', () => {
  it('is 1 and -1 for lines, whatever their slope', () => {
    expect(pearson([1, 2, 4], [10, 20, 40])).toBeCloseTo(1, 12);
    expect(pearson([1, 2, 4], [5, 4, 2])).toBeCloseTo(-1, 12);
  });

  it('is 0 for a row that does not vary', () => {
    expect(pearson([1, 2, 3], [2, 2, 2])).toBe(0);
  });
});
