import {describe, expect, it} from 'vitest';
import {
  type ExpertWeaverSplit,
  expertWeaverSplit,
  neuronPoints,
  universalNeurons,
} from '../../../src/downcycle/partition/expertweaver.js';
import {neuronCv} from '../../../src/downcycle/statistics.js';
import {createRng, shuffle} from '../../../src/util/rng.js';
import {fixture, fixtureProfile, groupedProfile, permuteIds, permuteProfile} from '../golden.js';

const split: ExpertWeaverSplit = {sharedBy: 'mean-abs', cv: 'tasks', assignment: 'optimal', standardise: true};
const shape = {experts: 14, shared: 2, topK: 3};
const plan = (seed: number, change: Partial<ExpertWeaverSplit> = {}) =>
  expertWeaverSplit(fixtureProfile, shape, {...split, ...change}, createRng(seed, 'split'));
const order = shuffle(
  Int32Array.from({length: 256}, (_, i) => i),
  createRng(1, 'order'),
);

describe('universalNeurons', () => {
  it('are the neurons of largest |mean|, as in PyTorch', () => {
    const {shared_ids: ids} = fixture.grid;
    expect(Array.from(universalNeurons(fixtureProfile, ids.length, split))).toEqual(ids);
  });

  it('are the neurons of least CV when asked for', () => {
    const cv_F = neuronCv(fixtureProfile, 'tasks');
    const chosen = universalNeurons(fixtureProfile, 50, {sharedBy: 'low-cv', cv: 'tasks'});
    const isChosen = new Set(chosen);
    const others = Array.from(cv_F).filter((_, id) => !isChosen.has(id));
    expect(chosen).toHaveLength(50);
    expect(Math.max(...Array.from(chosen, (id) => cv_F[id]!))).toBeLessThanOrEqual(Math.min(...others));
  });

  it('move with the neurons when these are permuted', () => {
    const moved = universalNeurons(permuteProfile(fixtureProfile, order), 50, split);
    expect(moved).toEqual(permuteIds(universalNeurons(fixtureProfile, 50, split), order));
  });

  it('are the lower ids among equals', () => {
    const flat = groupedProfile(new Float32Array(8).fill(1), 4, 1);
    expect(Array.from(universalNeurons(flat, 2, split))).toEqual([0, 1]);
  });
});

describe('neuronPoints', () => {
  const ids = Int32Array.of(7, 200);

  it('has the profile of each neuron as a row', () => {
    const {value_NJ, numFeatures} = neuronPoints(fixtureProfile, ids, false);
    expect(numFeatures).toBe(32);
    expect(value_NJ[numFeatures + 5]).toBe(fixtureProfile.gateMean_JF[5 * 256 + 200]);
  });

  it('gives standardised rows mean 0 and std 1', () => {
    const {value_NJ} = neuronPoints(fixtureProfile, ids, true);
    for (const row of [value_NJ.subarray(0, 32), value_NJ.subarray(32)]) {
      expect(row.reduce((a, x) => a + x, 0) / 32).toBeAllClose(0, {atol: 1e-12});
      expect(row.reduce((a, x) => a + x * x, 0) / 32).toBeAllClose(1, {atol: 1e-12});
    }
  });

  it('gives a neuron that never changes zeros, not infinities', () => {
    const flat = groupedProfile(new Float32Array(8).fill(3), 4, 1);
    expect(neuronPoints(flat, Int32Array.of(0), true).value_NJ).toBeAllClose([0, 0]);
  });
});

describe('expertWeaverSplit', () => {
  it.each([
    {},
    {assignment: 'greedy'},
    {standardise: false},
    {sharedBy: 'low-cv', cv: 'samples'},
  ] as Partial<ExpertWeaverSplit>[])('holds every neuron once, in experts of one width: %o', (change) => {
    const {shared, experts, topK} = plan(1, change);
    expect([shared, ...experts].flatMap((ids) => Array.from(ids)).sort((a, b) => a - b)).toEqual(
      Array.from({length: 256}, (_, id) => id),
    );
    expect(shared).toHaveLength(32);
    expect(experts.map((ids) => ids.length)).toEqual(new Array(14).fill(16));
    expect(topK).toBe(3);
  });

  it('splits without a shared part too', () => {
    const {shared, experts} = expertWeaverSplit(
      fixtureProfile,
      {...shape, experts: 16, shared: 0},
      split,
      createRng(1, ''),
    );
    expect(shared).toHaveLength(0);
    expect(experts).toHaveLength(16);
  });

  it('is the same for the same seed and another for another', () => {
    expect(plan(1)).toEqual(plan(1));
    expect(plan(1)).not.toEqual(plan(2));
  });

  it('puts neurons that fire alike into one expert', () => {
    // Neuron i reacts to task i % 4 alone, more or less strongly; 8 universal neurons are always on.
    const fires = (task: number, i: number): number => (i < 8 ? 9 : i % 4 === task ? 1 + i / 40 : 0.01);
    const gateMean_JF = Float32Array.from({length: 8 * 40}, (_, at) => fires(Math.floor(at / 80), at % 40));
    const {shared, experts} = expertWeaverSplit(
      groupedProfile(gateMean_JF, 40, 2),
      {experts: 4, shared: 1, topK: 1},
      split,
      createRng(1, 'x'),
    );
    expect(Array.from(shared)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    for (const ids of experts) expect(new Set(Array.from(ids, (id) => id % 4)).size).toBe(1);
  });
});
