import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {coActivationGroups} from '../../../src/downcycle/partition/co-activation.js';
import {capacities} from '../../../src/downcycle/partition/cut.js';
import {importanceSplit, type LlamaMoeSplit, llamaMoeSplit} from '../../../src/downcycle/partition/llama-moe.js';
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng} from '../../../src/util/rng.js';
import {back, oldNames, permutation, plantedMarks, plantedRows} from './planted.js';

const F = 32;
const same = Int32Array.from({length: F}, (_, id) => id);
const shape = {experts: 4, shared: 4, topK: 2};
const routedOnly = {experts: 4, shared: 0, topK: 2};
const SPLITS = ['random', 'contiguous', 'k-means', 'co-activation', 'importance'] as const;

/** A layer that every way can split. */
function layerOf(order: ArrayLike<number>): {profile: LayerProfile; gate_FD: Float32Array} {
  const rng = createRng(9, 'importance');
  const importance_F = new Float32Array(order.length);
  for (let id = 0; id < order.length; id++) importance_F[order[id]!] = rng.uniform();
  return {
    profile: {...plantedMarks(order, 4), gradients: {importance_F, sensitivity_F: new Float32Array(order.length)}},
    gate_FD: plantedRows(order, {D: 6, numGroups: 4, lengths: [1, 1.1]}),
  };
}

const split = (way: LlamaMoeSplit, change: {order?: ArrayLike<number>; seed?: number; counts?: typeof shape} = {}) => {
  const {order = same, seed = 1, counts = shape} = change;
  return llamaMoeSplit(layerOf(order), counts, way, createRng(seed, 'split'));
};

describe.each(SPLITS)('llamaMoeSplit, %s', (way) => {
  it.each([shape, routedOnly])('holds every neuron once, ascending, in experts of one width: %o', (counts) => {
    const {shared, experts, topK} = split(way, {counts});
    const all = [shared, ...experts].flatMap((ids) => Array.from(ids));
    expect(all.sort((a, b) => a - b)).toEqual(Array.from(same));
    for (const ids of [shared, ...experts]) expect(ids).toEqual(ids.slice().sort());
    expect(new Set(experts.map((ids) => ids.length)).size).toBe(1);
    expect(topK).toBe(2);
  });

  it('is the same for the same seed', () => {
    expect(split(way)).toEqual(split(way));
  });
});

describe.each(['k-means', 'co-activation', 'importance'] as const)('llamaMoeSplit, %s', (way) => {
  it.each([F, F + 1])('follows the neurons when the dense model permutes its %i', (numNeurons) => {
    const to_F = permutation(numNeurons);
    const [plan, moved] = [split(way, {order: to_F.toSorted()}), split(way, {order: to_F})];
    expect(back(moved.shared, to_F)).toEqual(Array.from(plan.shared));
    expect(oldNames(moved.experts, to_F)).toEqual(oldNames(plan.experts, to_F.toSorted()));
  });
});

describe.each(['k-means', 'co-activation'] as const)('llamaMoeSplit, %s', (way) => {
  it('finds planted groups again, whatever the seed', () => {
    for (let seed = 0; seed < 20; seed++) {
      for (const ids of split(way, {seed, counts: routedOnly}).experts) {
        expect(new Set(Array.from(ids, (id) => id % 4)).size).toBe(1);
      }
    }
  });

  it('shares the neurons that add most to the residual stream', () => {
    expect(Array.from(split(way).shared)).toEqual(Array.from({length: 16}, (_, id) => id));
  });
});

describe('coActivationGroups', () => {
  it('has far more co-activation within groups than runs of ids have', () => {
    const profile = plantedMarks(same, 4);
    const within = (groups: readonly Int32Array[]): number => {
      const groupOf = (id: number): number => groups.findIndex((ids) => ids.includes(id));
      let pairs = 0;
      for (let at = 0; at < profile.marker_NM.length; at += profile.numMarkers) {
        const marked = Array.from(profile.marker_NM.subarray(at, at + profile.numMarkers), groupOf);
        for (const [i, group] of marked.entries()) pairs += marked.slice(i + 1).filter((one) => one === group).length;
      }
      return pairs;
    };
    const found = within(coActivationGroups(profile, same, new Int32Array(4).fill(F / 4), createRng(1, 'groups')));
    const byOrder = within(Array.from({length: 4}, (_, e) => same.slice(8 * e, 8 * e + 8)));
    expect(found).toBeGreaterThan(2 * byOrder);
  });

  it('fills groups with neurons that no token marks, and takes groups of one', () => {
    const silent = {...unwatched(F), marker_NM: Int32Array.of(3, 3, 3), numMarkers: 1};
    for (const numGroups of [4, F]) {
      const groups = coActivationGroups(
        silent,
        same,
        new Int32Array(numGroups).fill(F / numGroups),
        createRng(1, 'groups'),
      );
      expect(groups.map((ids) => ids.length)).toEqual(new Array(numGroups).fill(F / numGroups));
    }
  });
});

describe('importanceSplit', () => {
  it('shares the most important neurons, and gives every expert an equal share of the others but for one', () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({min: 0, max: 1000, noNaN: true}), {minLength: F - 8, maxLength: F}),
        fc.constantFrom(0, 4, 12),
        (importance, shared) => {
          const importance_F = Float32Array.from(importance);
          const numNeurons = importance.length;
          const gradients = {importance_F, sensitivity_F: new Float32Array(numNeurons)};
          const counts = {experts: 4, shared, topK: 1};
          const plan = importanceSplit({...unwatched(numNeurons), gradients}, counts);
          expect(plan.experts.map((ids) => ids.length)).toEqual(Array.from(capacities(numNeurons, counts).capacity_E));
          const of = (ids: Int32Array): number[] => Array.from(ids, (id) => importance_F[id]!);
          const routed = plan.experts.flatMap(of);
          const largest = Math.max(...routed);
          if (shared > 0) expect(Math.min(...of(plan.shared))).toBeGreaterThanOrEqual(largest);
          const sums = plan.experts.map((ids) => of(ids).reduce((sum, value) => sum + value, 0));
          expect(Math.max(...sums) - Math.min(...sums)).toBeLessThanOrEqual(largest * (1 + 1e-9));
        },
      ),
    );
  });
});
