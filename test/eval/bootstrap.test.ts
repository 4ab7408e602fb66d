import {describe, expect, it} from 'vitest';
import {pairedBootstrap} from '../../src/eval/bootstrap.js';
import {createRng} from '../../src/util/rng.js';

const rng = createRng(9, 'deltas');
const deltas = Array.from({length: 80}, () => rng.normal() + 0.1);
const weights = deltas.map(() => 1 + rng.int(5));
const ones = deltas.map(() => 1);

describe('pairedBootstrap', () => {
  it('finds no difference between equal models', () => {
    const found = pairedBootstrap(new Float64Array(30), new Float64Array(30).fill(1), {seed: 1});
    expect(found).toEqual({difference: 0, interval: [0, 0], above: 0.5});
  });

  it('turns all signs when the models are exchanged', () => {
    const [one, other] = [deltas, deltas.map((delta) => -delta)].map((d) => pairedBootstrap(d, weights, {seed: 4}));
    expect(other!.difference).toBe(-one!.difference);
    expect(other!.interval).toEqual([-one!.interval[1], -one!.interval[0]]);
    expect(other!.above).toBeCloseTo(1 - one!.above, 12);
  });

  it('has about the interval of the normal approximation', () => {
    const {difference, interval} = pairedBootstrap(deltas, ones, {seed: 2});
    const mean = deltas.reduce((sum, delta) => sum + delta, 0) / deltas.length;
    const deviation = Math.sqrt(deltas.reduce((sum, delta) => sum + (delta - mean) ** 2, 0)) / deltas.length;
    expect(difference).toBeCloseTo(mean, 12);
    expect(interval).toBeAllClose([mean - 1.96 * deviation, mean + 1.96 * deviation], {atol: 0.02});
  });

  it('weighs units', () => {
    expect(pairedBootstrap([2, 0], [1, 3], {seed: 0}).difference).toBe(0.5);
  });

  it('draws the same for the same seed, and otherwise for another', () => {
    const draw = (seed: number) => pairedBootstrap(deltas, ones, {seed, resamples: 200}).interval;
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });
});
