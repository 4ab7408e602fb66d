import {describe, expect, it} from 'vitest';
import {contribution} from '../../../src/downcycle/partition/all-shared.js';
import {type ForeseenLayer, weaveSplit} from '../../../src/downcycle/partition/weave.js';
import {unwatched} from '../../../src/downcycle/statistics.js';
import {createRng} from '../../../src/util/rng.js';
import {back, oldNames, permutation} from './planted.js';

const F = 32;
const P = 6;
const shape = {experts: 4, shared: 4, topK: 2};

/** The first half of the neurons add most; of the others, those with ids equal modulo 4 are foreseen in one direction. */
function layerOf(to_F: ArrayLike<number> = Array.from({length: F}, (_, id) => id)): ForeseenLayer {
  const rng = createRng(4, 'weave');
  const numNeurons = to_F.length;
  const foreseen_FP = new Float32Array(numNeurons * P);
  const hMagnitude_F = new Float32Array(numNeurons);
  for (let id = 0; id < numNeurons; id++) {
    const length = 1 + 9 * rng.uniform(); // the direction counts, not the length
    hMagnitude_F[to_F[id]!] = id < numNeurons / 2 ? 10 + rng.uniform() : 1 + rng.uniform();
    for (let p = 0; p < P; p++) {
      foreseen_FP[to_F[id]! * P + p] = length * ((p === id % 4 ? 1 : 0) + 0.05 * rng.normal());
    }
  }
  const downNorm_F = new Float32Array(numNeurons).fill(2);
  return {profile: {...unwatched(numNeurons), hMagnitude_F, downNorm_F}, foreseen_FP};
}

describe('weaveSplit', () => {
  const plan = weaveSplit(layerOf(), shape, createRng(1, 'split'));

  it('shares the neurons that add most to the residual stream', () => {
    expect(Array.from(plan.shared)).toEqual(Array.from({length: 16}, (_, id) => id));
    const {profile} = layerOf();
    expect(contribution(profile)[0]).toBeCloseTo(2 * profile.hMagnitude_F[0]!, 5);
  });

  it('puts neurons together that the input foresees together, whatever their size', () => {
    for (const ids of plan.experts) {
      expect(ids).toHaveLength(4);
      expect(new Set(Array.from(ids, (id) => id % 4)).size).toBe(1);
    }
  });

  it('holds every neuron once, and is the same for the same seed', () => {
    const all = [plan.shared, ...plan.experts].flatMap((ids) => Array.from(ids));
    expect(all.sort((a, b) => a - b)).toEqual(Array.from({length: F}, (_, id) => id));
    expect(weaveSplit(layerOf(), shape, createRng(1, 'split'))).toEqual(plan);
  });

  it.each([F, F + 1])('follows the neurons when the dense model permutes its %i', (numNeurons) => {
    const to_F = permutation(numNeurons);
    const split = (order: Int32Array) => weaveSplit(layerOf(order), shape, createRng(1, 'split'));
    const [before, moved] = [split(to_F.toSorted()), split(to_F)];
    expect(back(moved.shared, to_F)).toEqual(Array.from(before.shared));
    expect(oldNames(moved.experts, to_F)).toEqual(oldNames(before.experts, to_F.toSorted()));
  });
});
