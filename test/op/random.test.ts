import {describe, expect, it} from 'vitest';
import {randomNormal, randomUniform} from '../../src/op/random.js';
import {onEveryEngine, runningEngines, withEngine} from '../support/engines.js';
import {type Host, ints} from '../support/host.js';
import type * as tf from '../support/tfjs.js';

const uniform = (seed: tf.Tensor1D): tf.Tensor => randomUniform(seed, [5, 7]);
const normal = (seed: tf.Tensor1D): tf.Tensor => randomNormal(seed, [5, 7]);
const many = 40_000;

async function onAll(fn: (seed: tf.Tensor1D) => tf.Tensor, seed: Host): Promise<Host[]> {
  const results: Host[] = [];
  for (const name of runningEngines()) {
    const [result] = await withEngine(name, ({run}) => run(fn, seed));
    results.push(result!);
  }
  return results;
}

/** Mean of f over the values. */
function moment(values: ArrayLike<number>, f: (x: number) => number): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += f(values[i]!);
  return sum / values.length;
}

describe('randomUniform', () => {
  it('gives the same bits on every engine, for seeds of both signs', async () => {
    for (const seed of [ints([2], [5, 7]), ints([2], [-1, -2_000_000_000])]) {
      const [first, ...others] = await onAll(uniform, seed);
      expect(first!.shape).toEqual([5, 7]);
      for (const other of others) expect(Array.from(other.values)).toEqual(Array.from(first!.values));
    }
  });

  it('gives the numbers of Philox-4x32-10 of the Random123 paper', async () => {
    // Key 0 and counter 0: 6627e8d5 e169c58d bc57ac4c 9b00dbd8 (kat_vectors of Random123); the low 23 bits of each.
    const expected = [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8].map((word) => (word & 0x7fffff) / 2 ** 23);
    for (const {values} of await onAll((seed) => randomUniform(seed, [4]), ints([2], [0, 0]))) {
      expect(Array.from(values)).toEqual(expected);
    }
  });

  onEveryEngine('is uniform in [0, 1)', async ({run}) => {
    const [{values}] = (await run((seed: tf.Tensor1D) => randomUniform(seed, [many]), ints([2], [1, 2]))) as [Host];
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...values)).toBeLessThan(1);
    expect(moment(values, (x) => x)).toBeAllClose(1 / 2, {atol: 0.01});
    expect(moment(values, (x) => x * x)).toBeAllClose(1 / 3, {atol: 0.01});
    expect(moment(values, (x) => (x < 0.1 ? 1 : 0))).toBeAllClose(0.1, {atol: 0.01});
  });

  onEveryEngine('gives other numbers for another seed, in either word', async ({run}) => {
    const draw = async (words: number[]): Promise<number[]> =>
      Array.from((await run(uniform, ints([2], words)))[0]!.values);
    const drawn = [await draw([1, 2]), await draw([2, 2]), await draw([1, 3])];
    expect(drawn[0]).not.toEqual(drawn[1]);
    expect(drawn[0]).not.toEqual(drawn[2]);
    expect(drawn[1]).not.toEqual(drawn[2]);
  });
});

describe('randomNormal', () => {
  it('gives the same numbers on every engine up to rounding', async () => {
    const [first, ...others] = await onAll(normal, ints([2], [5, 7]));
    for (const other of others) expect(other.values).toBeAllClose(first!.values, {rtol: 1e-4, atol: 1e-5});
  });

  onEveryEngine('has the moments of a standard normal', async ({run}) => {
    const [{values}] = (await run((seed: tf.Tensor1D) => randomNormal(seed, [many]), ints([2], [1, 2]))) as [Host];
    expect(moment(values, (x) => x)).toBeAllClose(0, {atol: 0.02});
    expect(moment(values, (x) => x ** 2)).toBeAllClose(1, {atol: 0.03});
    expect(moment(values, (x) => x ** 3)).toBeAllClose(0, {atol: 0.06});
    expect(moment(values, (x) => x ** 4)).toBeAllClose(3, {atol: 0.15});
  });
});
