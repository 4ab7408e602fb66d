import {readFileSync} from 'node:fs';
import {describe, expect, it} from 'vitest';
import {clipFactor, globalNorm} from '../../../src/train/optimizer/clip.js';
import {isMatrix} from '../../../src/train/part.js';
import {onEveryEngine, type TestEngine} from '../../support/engines.js';
import {floats, type Host, normals} from '../../support/host.js';
import * as tf from '../../support/tfjs.js';
import {type AdamState, referenceAdamW} from '../reference.js';
import {type At, moved, startOf} from './moved.js';

const OPTIONS = {kind: 'adamw', betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1} as const;

/** Numbers of test/fixtures/train/make_adamw.py. */
const torch = JSON.parse(readFileSync('test/fixtures/train/adamw.json', 'utf8')) as {
  rates: number[];
  norms: number[];
  weights: number[][];
  others: number[][];
};

/** One update on an engine, with decay or without. */
const update = (engine: TestEngine, before: readonly Host[], gradient: Host, at: At, decays = true): Promise<Host[]> =>
  moved(engine, OPTIONS, {shape: before[0]!.shape, part: 'ffn', decays}, before, gradient, at);

const start = (value: Host): Host[] => startOf(OPTIONS, {shape: value.shape, part: 'ffn', decays: true}, value);

describe('AdamW', () => {
  onEveryEngine('leaves parameter and moments as they are, to the bit, when the step is not safe', async (engine) => {
    const before = [normals([40], 1), normals([40], 2), floats([40], normals([40], 3).values.map(Math.abs))];
    const gradient = floats([40], new Float32Array(40).fill(Number.NaN));
    const after = await update(engine, before, gradient, {lr: 0.01, t: 3, isSafe: false});
    expect(after.map(({values}) => [...values])).toEqual(before.map(({values}) => [...values]));
  });

  onEveryEngine('equals a plain float64 AdamW over ten steps', async (engine) => {
    const rates = {learningRate: 0.01, weightDecay: 0.1, betas: [0.9, 0.95], eps: 1e-8} as const;
    let states = start(normals([40], 1));
    let expected: AdamState = {
      value: [...states[0]!.values],
      first: new Array(40).fill(0),
      second: new Array(40).fill(0),
    };
    for (let t = 1; t <= 10; t++) {
      const gradient = normals([40], 10 + t);
      states = await update(engine, states, gradient, {lr: 0.01, t});
      expected = referenceAdamW(expected, [...gradient.values], t, rates);
    }
    expect(states[0]!.values).toBeAllClose(expected.value, {rtol: 2e-6, atol: 1e-7});
    expect(states[1]!.values).toBeAllClose(expected.first, {rtol: 1e-5, atol: 1e-7});
    expect(states[2]!.values).toBeAllClose(expected.second, {rtol: 1e-5, atol: 1e-8});
  });

  onEveryEngine('with clipping equals that of torch over five steps, with and without decay', async (engine) => {
    let weight = start(floats([4], [0.5, -1.25, 2, 0.125]));
    let other = start(floats([2], [1, 0.75]));
    for (let t = 1; t <= 5; t++) {
      const gradients = [0, 1, 2, 3, 4, 5].map((i) => (Math.sin(1.7 * i + t) * t) / 2);
      const [norm, ...clipped] = await clip(
        engine,
        floats([4], gradients.slice(0, 4)),
        floats([2], gradients.slice(4)),
        1,
      );
      const at = {lr: torch.rates[t - 1]!, t};
      weight = await update(engine, weight, clipped[0]!, at);
      other = await update(engine, other, clipped[1]!, at, false);
      expect(norm!.values).toBeAllClose([torch.norms[t - 1]!], {rtol: 1e-6, atol: 0});
      expect(weight[0]!.values).toBeAllClose(torch.weights[t - 1]!, {rtol: 1e-6, atol: 1e-7});
      expect(other[0]!.values).toBeAllClose(torch.others[t - 1]!, {rtol: 1e-6, atol: 1e-7});
    }
  });

  onEveryEngine('decays weights that have no gradient by the learning rate alone', async (engine) => {
    const zero = floats([2], [0, 0]);
    const [value, first, second] = await update(engine, start(floats([2], [2, -4])), zero, {lr: 0.5, t: 3});
    expect(value!.values).toBeAllClose([2 * 0.95, -4 * 0.95], {rtol: 1e-7, atol: 0});
    expect([...first!.values, ...second!.values]).toEqual([0, 0, 0, 0]);
  });

  onEveryEngine('moves by the learning rate at the first step, however large the gradient', async (engine) => {
    const gradient = floats([3], [1e-3, -5, 4e6]);
    const [value] = await update(engine, start(floats([3], [0, 0, 0])), gradient, {lr: 0.25, t: 1}, false);
    expect(value!.values).toBeAllClose([-0.25, 0.25, -0.25], {rtol: 2e-5, atol: 0});
  });

  it('decays matrices, embeddings and routers, not norms and biases', () => {
    const matrices = ['embedding', 'attention', 'ffn', 'router', 'shared', 'expert'] as const;
    expect(matrices.filter((role) => !isMatrix({role}))).toEqual([]);
    expect((['norm', 'bias', 'attention-bias', 'expert-bias'] as const).filter((role) => isMatrix({role}))).toEqual([]);
  });
});

describe('clipping', () => {
  onEveryEngine('scales gradients that are too large to the limit, all by one factor', async (engine) => {
    const [norm, a, b] = await clip(engine, floats([2], [3, 0]), floats([1], [4]), 2);
    expect(norm!.values[0]).toBe(5);
    expect([...a!.values, ...b!.values]).toBeAllClose([1.2, 0, 1.6], {rtol: 1e-6, atol: 0});
  });

  onEveryEngine('leaves gradients within the limit alone to the bit', async (engine) => {
    const [, a, b] = await clip(engine, floats([2], [0.3, 0.1]), floats([1], [-0.7]), 2);
    expect([...a!.values, ...b!.values]).toEqual([0.3, 0.1, -0.7].map(Math.fround));
  });
});

/** Norm and clipped gradients. */
function clip({run}: TestEngine, a: Host, b: Host, limit: number): Promise<Host[]> {
  const fn = (...gradients: tf.Tensor[]): tf.Tensor[] => {
    const norm = globalNorm(gradients);
    const factor = clipFactor(norm, limit);
    return [norm, ...gradients.map((gradient) => tf.mul(gradient, factor))];
  };
  return run(fn, a, b);
}
