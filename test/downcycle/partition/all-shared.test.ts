import {describe, expect, it} from 'vitest';
import {allSharedSplit, neuronWorth} from '../../../src/downcycle/partition/all-shared.js';
import {LEFT_OUT, neuronMap, SHARED} from '../../../src/downcycle/plan.js';
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';

/** Two samples of four neurons; each criterion ranks them in another way. */
const profile: LayerProfile = {
  ...unwatched(4),
  taskOfSample_J: [0, 1],
  gateMean_JF: Float32Array.of(1, -5, 2, 0, 1, 4, 2, 0),
  hMagnitude_F: Float32Array.of(1, 2, 3, 4),
  downNorm_F: Float32Array.of(8, 1, 1, 1),
  hMean_JF: Float32Array.of(0, 1, 0, 2, 0, -1, 0, 2),
  hSquare_JF: Float32Array.of(1, 2, 3, 4, 1, 2, 3, 4),
  marker_NM: Int32Array.of(2, 3, 2, 1),
  numMarkers: 2,
  gradients: {importance_F: new Float32Array(4), sensitivity_F: Float32Array.of(1, 3, 2, 0)},
};

describe('allSharedSplit', () => {
  it.each([
    ['mean-abs', [1, 0.5, 2, 0]],
    ['magnitude', [8, 2, 3, 4]],
    ['variance', [64, 2, 3, 0]],
    ['markers', [0, 1, 2, 1]],
    ['sensitivity', [1, 3, 2, 0]],
  ] as const)('ranks by %s', (keepBy, worth) => {
    expect(neuronWorth(profile, keepBy)).toBeAllClose(worth);
  });

  it('keeps as many neurons as a routed layer has active, and leaves out the others', () => {
    const plan = allSharedSplit(profile, {experts: 3, shared: 1, topK: 1}, 'magnitude');
    expect(plan).toEqual({shared: Int32Array.of(0, 3), experts: [], topK: 0});
    expect(Array.from(neuronMap(plan, 4, 0))).toEqual([SHARED, LEFT_OUT, LEFT_OUT, SHARED]);
  });
});
