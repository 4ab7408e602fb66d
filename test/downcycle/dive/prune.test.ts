import {describe, expect, it} from 'vitest';
import {biasOf, prune} from '../../../src/downcycle/dive/prune.js';
import {type LayerProfile, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng} from '../../../src/util/rng.js';

const [F, S, D] = [7, 5, 3];
const TASKS = [0, 1, 0, 2];
const rng = createRng(2, 'prune');
/** h of every token of four samples, [sample][token][F]. */
const h = TASKS.map(() => Array.from({length: S}, () => Array.from({length: F}, () => rng.normal())));
const down_DF = Float32Array.from({length: D * F}, () => rng.normal());

/** What a profile holds of neurons in some order. */
function profileOf(order: readonly number[]): LayerProfile {
  const mean = (tokens: number[][], of: (value: number) => number): number[] =>
    order.map((i) => tokens.reduce((sum, token) => sum + of(token[i]!), 0) / S);
  return {
    ...unwatched(F),
    taskOfSample_J: TASKS,
    hMean_JF: Float32Array.from(h.flatMap((tokens) => mean(tokens, (value) => value))),
    hSquare_JF: Float32Array.from(h.flatMap((tokens) => mean(tokens, (value) => value * value))),
    downNorm_F: Float32Array.from(order, (i) => Math.hypot(...[0, 1, 2].map((d) => down_DF[d * F + i]!))),
  };
}
const asIs = [...new Array<number>(F).keys()];
const profile = profileOf(asIs);

/** Variance of a neuron over all tokens of some tasks, times the square of its row of Wd; and its mean. */
function byHand(tasks: readonly number[], i: number): {score: number; mean: number} {
  const values = h.flatMap((tokens, j) => (tasks.includes(TASKS[j]!) ? tokens.map((token) => token[i]!) : []));
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return {score: variance * [0, 1, 2].reduce((sum, d) => sum + down_DF[d * F + i]! ** 2, 0), mean};
}

describe('prune', () => {
  it.each([[[0]], [[1]], [[0, 2]], [[0, 1, 2]]])('keeps what varies most in its effect on tasks %j', (tasks) => {
    const ranked = asIs.toSorted((a, b) => byHand(tasks, b).score - byHand(tasks, a).score);
    for (const width of [1, 3, F]) {
      const {kept, mean_F} = prune(profile, tasks, width);
      const expected = ranked.slice(0, width).sort((a, b) => a - b);
      expect([...kept]).toEqual(expected);
      expect(mean_F).toBeAllClose(asIs.map((i) => (expected.includes(i) ? 0 : byHand(tasks, i).mean)));
    }
  });

  it('follows neurons into another order', () => {
    const order = [3, 6, 0, 5, 1, 4, 2];
    for (const tasks of [[0], [1, 2]]) {
      const kept = [...prune(profileOf(order), tasks, 3).kept].map((id) => order[id]!);
      expect(kept.sort((a, b) => a - b)).toEqual([...prune(profile, tasks, 3).kept]);
    }
  });

  it('keeps others for other tasks', () => {
    expect([...prune(profile, [1], 3).kept]).not.toEqual([...prune(profile, [2], 3).kept]);
  });

  it('takes the lower of two neurons of one score', () => {
    const alike = {...profile, hMean_JF: new Float32Array(4 * F), hSquare_JF: new Float32Array(4 * F).fill(1)};
    expect([...prune({...alike, downNorm_F: new Float32Array(F).fill(1)}, [0], 2).kept]).toEqual([0, 1]);
  });
});

describe('biasOf', () => {
  it('is what left out neurons add in the mean, and nothing where none is', () => {
    const pruning = prune(profile, [0], 3);
    const expected = [0, 1, 2].map((d) =>
      asIs.reduce((sum, i) => sum + (pruning.kept.includes(i) ? 0 : byHand([0], i).mean * down_DF[d * F + i]!), 0),
    );
    expect(biasOf(pruning, down_DF)).toBeAllClose(expected);
    expect([...biasOf(prune(profile, [0], F), down_DF)]).toEqual([0, 0, 0]);
  });
});
