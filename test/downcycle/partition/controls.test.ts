import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {contiguousSplit} from '../../../src/downcycle/partition/contiguous.js';
import {randomSplit} from '../../../src/downcycle/partition/random.js';
import {createRng} from '../../../src/util/rng.js';

const shape = {experts: 6, shared: 2, topK: 2};
const listed = (plan: ReturnType<typeof contiguousSplit>): number[] =>
  [plan.shared, ...plan.experts].flatMap((ids) => Array.from(ids));

describe('contiguousSplit', () => {
  it('keeps the order of the dense model, the shared part first', () => {
    const plan = contiguousSplit(32, shape);
    expect(listed(plan)).toEqual(Array.from({length: 32}, (_, id) => id));
    expect(plan.shared).toHaveLength(8);
    expect(Array.from(plan.experts[5]!)).toEqual([28, 29, 30, 31]);
    expect(plan.topK).toBe(2);
  });
});

describe('randomSplit', () => {
  it('holds every neuron once, ascending in experts of one width', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({min: 1, max: 20}), (seed, width) => {
        const plan = randomSplit(8 * width, shape, createRng(seed, 'random'));
        expect(listed(plan).sort((a, b) => a - b)).toEqual(Array.from({length: 8 * width}, (_, id) => id));
        for (const ids of plan.experts) expect(ids).toHaveLength(width);
        for (const ids of [plan.shared, ...plan.experts]) expect(ids).toEqual(ids.slice().sort());
      }),
    );
  });

  it('is the same for the same seed and another for another', () => {
    const plan = (seed: number) => randomSplit(64, shape, createRng(seed, 'random'));
    expect(plan(1)).toEqual(plan(1));
    expect(plan(1)).not.toEqual(plan(2));
  });

  it('shares every neuron equally often', () => {
    const times = new Int32Array(32);
    for (let seed = 0; seed < 2000; seed++) {
      for (const id of randomSplit(32, shape, createRng(seed, 'random')).shared) times[id]!++;
    }
    // 500 expected of each; the standard deviation is 19.
    expect(Math.min(...times)).toBeGreaterThan(410);
    expect(Math.max(...times)).toBeLessThan(590);
  });
});
