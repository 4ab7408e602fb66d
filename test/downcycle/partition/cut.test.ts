import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {chunkWidth} from '../../../src/downcycle/allocation.js';
import {contiguousSplit} from '../../../src/downcycle/partition/contiguous.js';
import {appendZeros, capacities} from '../../../src/downcycle/partition/cut.js';

/** Shapes, and at least as many neurons as they have chunks. */
const cuts = fc
  .record({experts: fc.integer({min: 1, max: 12}), shared: fc.integer({min: 0, max: 12})})
  .chain(({experts, shared}) =>
    fc.record({
      shape: fc.constant({experts, shared, topK: 1}),
      numNeurons: fc.integer({min: experts + shared, max: 200}),
    }),
  );

describe('capacities', () => {
  it('hold all neurons: one fewer than the width in the last experts first, and at most one for each shared chunk', () => {
    fc.assert(
      fc.property(cuts, ({shape, numNeurons}) => {
        const {shared, capacity_E} = capacities(numNeurons, shape);
        const width = chunkWidth(numNeurons, shape);
        expect(shared + capacity_E.reduce((sum, count) => sum + count, 0)).toBe(numNeurons);
        expect(capacity_E).toEqual(capacity_E.slice().sort().reverse());
        expect(capacity_E.every((count) => count > 0 && width - count <= 1)).toBe(true);
        const sharedFree = shape.shared * width - shared;
        expect(sharedFree).toBeLessThanOrEqual(shape.shared);
        if (sharedFree > 0) expect(capacity_E).toEqual(new Int32Array(shape.experts).fill(width - 1));
      }),
    );
  });

  it('are those of a layer by hand', () => {
    expect(capacities(24, {experts: 5, shared: 2, topK: 1})).toEqual({
      shared: 8,
      capacity_E: Int32Array.of(4, 3, 3, 3, 3),
    });
    expect(capacities(24, {experts: 5, shared: 6, topK: 1})).toEqual({
      shared: 14,
      capacity_E: Int32Array.of(2, 2, 2, 2, 2),
    });
  });
});

describe('appendZeros', () => {
  it('makes all chunks whole with ids that follow those of the neurons, and changes nothing where they are', () => {
    fc.assert(
      fc.property(cuts, ({shape, numNeurons}) => {
        const plan = contiguousSplit(numNeurons, shape);
        const {shared, experts} = appendZeros(plan, numNeurons, shape);
        const width = chunkWidth(numNeurons, shape);
        expect(shared).toHaveLength(shape.shared * width);
        expect(experts.map((ids) => ids.length)).toEqual(new Array(shape.experts).fill(width));
        const parts = [shared, ...experts];
        expect(parts.map((ids) => ids.filter((id) => id < numNeurons))).toEqual([plan.shared, ...plan.experts]);
        const chunks = shape.experts + shape.shared;
        const all = parts.flatMap((ids) => Array.from(ids)).sort((a, b) => a - b);
        expect(all).toEqual(Array.from({length: chunks * width}, (_, id) => id));
      }),
    );
  });

  it('appends nothing to a layer without experts', () => {
    const plan = {shared: Int32Array.of(0, 2), experts: [], topK: 0};
    expect(appendZeros(plan, 5, {experts: 2, shared: 0, topK: 1})).toBe(plan);
  });
});
