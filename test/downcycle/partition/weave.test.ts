import {describe, expect, it} from 'vitest';
import {contribution} from '../../../src/downcycle/partition/all-shared.js';
import {weaveSplit} from '../../../src/downcycle/partition/weave.js';
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng, shuffle} from '../../../src/util/rng.js';

const F = 32;
const P = 6;
const shape = {experts: 4, shared: 4, topK: 2};

/** Neurons 0 to 15 add most; of the others, those with ids equal modulo 4 are foreseen in one direction. */
function profileOf(to_F: ArrayLike<number> = Array.from({length: F}, (_, id) => id)): LayerProfile {
  const rng = createRng(4, 'weave');
  const profile_FP = new Float32Array(F * P);
  const hMagnitude_F = new Float32Array(F);
  for (let id = 0; id < F; id++) {
    const length = 1 + 9 * rng.uniform(); // the direction counts, not the length
    hMagnitude_F[to_F[id]!] = id < 16 ? 10 + rng.uniform() : 1 + rng.uniform();
    for (let p = 0; p < P; p++) {
      profile_FP[to_F[id]! * P + p] = length * ((p === id % 4 ? 1 : 0) + 0.05 * rng.normal());
    }
  }
  return {...unwatched(F), hMagnitude_F, downNorm_F: new Float32Array(F).fill(2), predicted: {profile_FP}};
}

describe('weaveSplit', () => {
  const plan = weaveSplit(profileOf(), shape, createRng(1, 'split'));

  it('shares the neurons that add most to the residual stream', () => {
    expect(Array.from(plan.shared)).toEqual(Array.from({length: 16}, (_, id) => id));
    expect(contribution(profileOf())[0]).toBeCloseTo(2 * profileOf().hMagnitude_F[0]!, 5);
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
    expect(weaveSplit(profileOf(), shape, createRng(1, 'split'))).toEqual(plan);
  });

  it('follows the neurons when the dense model permutes them', () => {
    const to_F = shuffle(
      Int32Array.from({length: F}, (_, id) => id),
      createRng(2, 'permutation'),
    );
    const moved = weaveSplit(profileOf(to_F), shape, createRng(1, 'split'));
    const back = (ids: Int32Array): number[] => Array.from(ids, (id) => to_F.indexOf(id)).sort((a, b) => a - b);
    expect(back(moved.shared)).toEqual(Array.from(plan.shared));
    const sets = (experts: readonly number[][]) => experts.map((ids) => ids.join()).sort();
    expect(sets(moved.experts.map(back))).toEqual(sets(plan.experts.map((ids) => Array.from(ids))));
  });
});
