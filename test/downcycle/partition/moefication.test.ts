import {describe, expect, it} from 'vitest';
import {moeficationSplit} from '../../../src/downcycle/partition/moefication.js';
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng} from '../../../src/util/rng.js';
import {back, oldNames, permutation, plantedMarks, plantedRows} from './planted.js';

const F = 32;
const same = Int32Array.from({length: F}, (_, id) => id);
const routedOnly = {experts: 4, shared: 0, topK: 2};
const lengths: [number, number] = [1, 10];
const split = (
  gate_FD: Float32Array,
  {
    shape = routedOnly,
    profile = unwatched(F),
    normalise = true,
  }: {shape?: typeof routedOnly; profile?: LayerProfile; normalise?: boolean} = {},
) => moeficationSplit({profile, gate_FD}, shape, {normalise}, createRng(1, 'split'));

describe('moeficationSplit', () => {
  it.each([6, 200])('puts neurons together whose gate rows of %i columns point alike, whatever their lengths', (D) => {
    const {shared, experts} = split(plantedRows(same, {D, numGroups: 4, lengths}));
    expect(shared).toHaveLength(0);
    for (const ids of experts) {
      expect(ids).toHaveLength(8);
      expect(new Set(Array.from(ids, (id) => id % 4)).size).toBe(1);
    }
  });

  it('goes by lengths too if they are left as they are', () => {
    // One direction, two lengths: neurons of even and of odd ids.
    const gate_FD = Float32Array.from({length: F * 2}, (_, at) => (Math.floor(at / 2) % 2 === 0 ? 1 : 5));
    for (const ids of split(gate_FD, {shape: {...routedOnly, experts: 2, topK: 1}, normalise: false}).experts) {
      expect(new Set(Array.from(ids, (id) => id % 2)).size).toBe(1);
    }
  });

  it('shares the neurons that add most to the residual stream, if any', () => {
    const gate_FD = plantedRows(same, {D: 6, numGroups: 4, lengths});
    const {shared, experts} = split(gate_FD, {shape: {experts: 4, shared: 4, topK: 2}, profile: plantedMarks(same, 4)});
    expect(Array.from(shared)).toEqual(Array.from({length: 16}, (_, id) => id));
    const all = [shared, ...experts].flatMap((ids) => Array.from(ids));
    expect(all.sort((a, b) => a - b)).toEqual(Array.from(same));
    for (const ids of experts) expect(ids).toHaveLength(4);
  });

  it('is the same for the same seed, and takes rows of zeros', () => {
    const gate_FD = plantedRows(same, {D: 6, numGroups: 4, lengths});
    gate_FD.fill(0, 0, 3 * 6);
    expect(split(gate_FD)).toEqual(split(gate_FD));
    expect(split(gate_FD).experts.map((ids) => ids.length)).toEqual([8, 8, 8, 8]);
  });

  it.each([
    [F, 6],
    [F, 200],
    [F + 1, 6], // 8 chunks of 5 are not whole
  ])('follows the neurons when the dense model permutes its %i, with %i columns', (numNeurons, D) => {
    const shape = {experts: 4, shared: 4, topK: 2};
    const to_F = permutation(numNeurons);
    const [plan, moved] = [to_F.toSorted(), to_F].map((order) =>
      split(plantedRows(order, {D, numGroups: 4, lengths}), {shape, profile: plantedMarks(order, 4)}),
    );
    expect(back(moved!.shared, to_F)).toEqual(Array.from(plan!.shared));
    expect(oldNames(moved!.experts, to_F)).toEqual(oldNames(plan!.experts, to_F.toSorted()));
  });
});
