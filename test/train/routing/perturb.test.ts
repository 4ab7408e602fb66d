import {describe, expect} from 'vitest';
import {SOFTMAX_ROUTING} from '../../../src/model/architecture.js';
import {type RouterInput, route} from '../../../src/model/router.js';
import {dropExperts, jitter, noisy} from '../../../src/train/routing/perturb.js';
import {onEveryEngine} from '../../support/engines.js';
import {checkGradients} from '../../support/gradients.js';
import {floats, type Host, ints, normals} from '../../support/host.js';
import * as tf from '../../support/tfjs.js';
import {experts} from '../support.js';

const [T, D, E, K] = [24, 6, 8, 2];
const x = normals([T, D], 1);
const router = normals([D, E], 2);
const seed = ints([2], [11, 12]);

/** What a linear router of a layer of E experts sees. */
function inputOf(x_TD: tf.Tensor2D, matrix: tf.Tensor2D, bias: tf.Tensor | null = null): RouterInput {
  const params = {router: matrix, routerUp: null, routerOut: null, bias, scale: null};
  return {x_TD, params, layout: experts(E, K), routing: SOFTMAX_ROUTING};
}

const rowsOf = ({shape, values}: Host): number[][] =>
  Array.from({length: shape[0]!}, (_, t) => [...values.subarray(t * shape[1]!, (t + 1) * shape[1]!)]);

const meanOf = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0) / numbers.length;

describe('jitter', () => {
  /** With a router that copies features to logits, these are the factors. */
  const identity = floats(
    [E, E],
    Array.from({length: E * E}, (_, i) => (i % (E + 1) === 0 ? 1 : 0)),
  );
  const ones = floats([512, E], new Float32Array(512 * E).fill(1));
  const factors = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D, words: tf.Tensor1D): tf.Tensor =>
    jitter(inputOf(x_TD, matrix), 0.25, words).logit_TE;

  onEveryEngine('has a factor for each token and feature, even between 1 - a and 1 + a', async ({run}) => {
    const [first] = await run(factors, ones, identity, seed);
    const values = [...first!.values];
    expect(Math.min(...values)).toBeGreaterThanOrEqual(0.75);
    expect(Math.max(...values)).toBeLessThanOrEqual(1.25);
    expect(new Set(values).size, 'all drawn').toBeGreaterThan(0.99 * values.length);
    const deviation = Math.sqrt(meanOf(values.map((factor) => (factor - 1) ** 2)));
    expect(meanOf(values)).toBeCloseTo(1, 2);
    expect(deviation).toBeCloseTo(0.25 / Math.sqrt(3), 2);
    const [again] = await run(factors, ones, identity, seed);
    expect(again!.values, 'the same of the same seed').toEqual(first!.values);
    const [other] = await run(factors, ones, identity, ints([2], [11, 13]));
    expect(other!.values).not.toEqual(first!.values);
  });

  onEveryEngine('has the gradient of finite differences', async (engine) => {
    const weights = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D): tf.Tensor =>
      jitter(inputOf(x_TD, matrix), 0.1, tf.tensor1d([1, 2], 'int32')).route.score_TE;
    await checkGradients(engine, weights, [x, router]);
  });
});

/** Φ by its Taylor series in float64; beyond 6 deviations it is 0 or 1 to a billionth. */
function normalShare(z: number): number {
  if (Math.abs(z) > 6) return z > 0 ? 1 : 0;
  let [term, sum] = [z, z];
  for (let n = 1; n < 300; n++) {
    term *= (-z * z) / (2 * n);
    sum += term / (2 * n + 1);
  }
  return 0.5 + sum / Math.sqrt(2 * Math.PI);
}

/** Eq. 8 and 9 of Shazeer et al. 2017, one expert after the other. */
function referenceChances(clean: readonly number[], drawn: readonly number[], topK: number, std: number): number[] {
  return clean.map((logit, e) => {
    const others = drawn.filter((_, one) => one !== e).sort((a, b) => b - a);
    return normalShare((logit - others[topK - 1]!) / std);
  });
}

describe('noisy top-k', () => {
  const std = 0.5;
  const disturbed = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D, words: tf.Tensor1D): tf.Tensor[] => {
    const input = inputOf(x_TD, matrix);
    const {logit_TE, route: chosen, chance_TE} = noisy(input, std, words);
    const {expert_TK, weight_TK} = route(logit_TE, null, K, SOFTMAX_ROUTING);
    return [
      tf.matMul(x_TD, matrix),
      logit_TE,
      chance_TE!,
      tf.sub(weight_TK, chosen.weight_TK),
      tf.sub(expert_TK, chosen.expert_TK),
    ];
  };

  onEveryEngine('adds normal noise, by which experts are chosen and weighed', async ({run}) => {
    const many = normals([1000, D], 3);
    const [clean, drawn, , weights, chosen] = await run(disturbed, many, router, seed);
    const noise = [...drawn!.values].map((logit, i) => (logit - clean!.values[i]!) / std);
    expect(Math.abs(meanOf(noise))).toBeLessThan(3 / Math.sqrt(noise.length));
    expect(meanOf(noise.map((n) => n * n))).toBeCloseTo(1, 1);
    expect(meanOf(noise.map((n) => Math.sign(n - 1) / 2 + 0.5)), 'beyond one deviation').toBeCloseTo(0.1587, 2);
    expect([...weights!.values, ...chosen!.values].every((gap) => gap === 0)).toBe(true);
  });

  onEveryEngine('knows the chance of each expert to be chosen if its noise were drawn again', async ({run}) => {
    const [clean, drawn, chance] = await run(disturbed, x, router, seed);
    const expected = rowsOf(clean!).map((row, t) => referenceChances(row, rowsOf(drawn!)[t]!, K, std));
    expect(chance!.values).toBeAllClose(expected, {rtol: 1e-4, atol: 2e-5});
  });

  onEveryEngine('has the gradient of finite differences, of chances too', async (engine) => {
    const numbers = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D): tf.Tensor => {
      const {route: chosen, chance_TE} = noisy(inputOf(x_TD, matrix), 2, tf.tensor1d([1, 2], 'int32'));
      return tf.concat([chosen.score_TE, chance_TE!], 1);
    };
    await checkGradients(engine, numbers, [x, router], {step: 1e-3, tolerance: 1e-2});
  });

  onEveryEngine('leaves chances out where a bias moves the choice', async ({run}) => {
    const fn = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D, words: tf.Tensor1D): tf.Tensor => {
      const {chance_TE, route: chosen} = noisy(inputOf(x_TD, matrix, tf.zeros([E])), std, words);
      expect(chance_TE).toBeUndefined();
      return chosen.weight_TK;
    };
    await run(fn, x, router, seed);
  });
});

describe('dropout of experts', () => {
  const dropped = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D, words: tf.Tensor1D): tf.Tensor[] => {
    const bias = tf.tensor1d([5, 0, 0, 0, 0, 0, 0, 0]);
    const {route: chosen} = dropExperts(inputOf(x_TD, matrix, bias), 0.375, words);
    return [tf.matMul(x_TD, matrix), chosen.score_TE, chosen.expert_TK, chosen.weight_TK];
  };

  onEveryEngine('leaves the same experts out for all tokens; the others share the scores', async ({run}) => {
    const seen = new Set<string>();
    for (const word of [1, 2, 3, 4]) {
      const [logits, scores, chosen, weights] = await run(dropped, x, router, ints([2], [word, 7]));
      const out = rowsOf(scores!).map((row) => row.flatMap((score, e) => (score === 0 ? [e] : [])));
      expect(out[0]).toHaveLength(3);
      for (const one of out) expect(one).toEqual(out[0]);
      expect(
        [...chosen!.values].some((e) => out[0]!.includes(e)),
        'a bias does not bring one back',
      ).toBe(false);
      const left = rowsOf(logits!).map((row) => row.map((logit, e) => (out[0]!.includes(e) ? 0 : Math.exp(logit))));
      const expected = left.map((row) => row.map((value) => value / row.reduce((a, b) => a + b, 0)));
      expect(scores!.values).toBeAllClose(expected, {rtol: 1e-5, atol: 1e-7});
      const picked = rowsOf(chosen!).map((row, t) => row.map((e) => expected[t]![e]!));
      expect(weights!.values).toBeAllClose(picked, {rtol: 1e-5, atol: 1e-7});
      seen.add(JSON.stringify(out[0]));
    }
    expect(seen.size, 'others with another seed').toBeGreaterThan(1);
  });

  onEveryEngine('has the gradient of finite differences', async (engine) => {
    const weights = (x_TD: tf.Tensor2D, matrix: tf.Tensor2D): tf.Tensor =>
      dropExperts(inputOf(x_TD, matrix), 0.25, tf.tensor1d([1, 2], 'int32')).route.score_TE;
    await checkGradients(engine, weights, [x, router]);
  });
});
