import {describe, expect, it} from 'vitest';
import {pickToken, type Sampling} from '../../src/eval/sampling.js';
import {createRng} from '../../src/util/rng.js';

const logits = Float32Array.of(1, 3, -2, 3, 2);

function random(temperature: number, topP: number): Sampling {
  return {kind: 'random', temperature, topP};
}

/** Shares of many evenly spread draws that gave each token. */
function shares(sampling: Sampling): number[] {
  const draws = 20_000;
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[pickToken(logits, sampling, (i + 0.5) / draws)]! += 1 / draws;
  return counts;
}

function softmax(values: readonly number[]): number[] {
  const sum = values.reduce((total, value) => total + Math.exp(value), 0);
  return values.map((value) => Math.exp(value) / sum);
}

describe('pickToken', () => {
  it('takes the largest logit when greedy, the lower id of two equal ones', () => {
    expect(pickToken(logits, {kind: 'greedy'}, 0.9)).toBe(1);
  });

  it('takes the largest logit when greedy even where all are far below zero', () => {
    expect(pickToken(Float32Array.of(-300, -200, -250), {kind: 'greedy'}, 0)).toBe(1);
  });

  it('draws each token by its probability', () => {
    expect(shares(random(1, 1))).toBeAllClose(softmax([...logits]), {atol: 1e-4});
  });

  it('draws by logits over the temperature', () => {
    expect(shares(random(2, 1))).toBeAllClose(softmax(Array.from(logits, (x) => x / 2)), {atol: 1e-4});
  });

  it('is greedy in the limit of low temperature', () => {
    const lower = Float32Array.of(1, 3, -2, 2.9, 2);
    for (const uniform of [0, 0.5, 0.999]) expect(pickToken(lower, random(1e-3, 1), uniform)).toBe(1);
  });

  it('draws from the fewest likeliest tokens that reach topP, as if there were no others', () => {
    const [, first, , second, third] = softmax([...logits]) as [number, number, number, number, number];
    const kept = first + second + third;
    expect(shares(random(1, first + second + third / 2))).toBeAllClose(
      [0, first / kept, 0, second / kept, third / kept],
      {atol: 1e-4},
    );
  });

  it('draws from the topK likeliest tokens, the lower id of two equal ones, as if there were no others', () => {
    const [, first, , , third] = softmax([...logits]) as [number, number, number, number, number];
    const two = {kind: 'random', temperature: 1, topP: 1, topK: 2} as const;
    expect(shares(two)).toBeAllClose([0, 0.5, 0, 0.5, 0], {atol: 1e-4});
    expect(shares({...two, topK: 1})).toBeAllClose([0, 1, 0, 0, 0], {atol: 1e-9});
    const kept = 2 * first + third;
    expect(shares({...two, topK: 3})).toBeAllClose([0, first / kept, 0, first / kept, third / kept], {atol: 1e-4});
    expect(shares({...two, topK: 9})).toBeAllClose(softmax([...logits]), {atol: 1e-4});
  });

  it('takes topP of what topK left', () => {
    expect(shares({kind: 'random', temperature: 1, topP: 0.75, topK: 2})).toBeAllClose([0, 0.5, 0, 0.5, 0], {
      atol: 1e-4,
    });
    expect(shares({kind: 'random', temperature: 1, topP: 0.49, topK: 2})).toBeAllClose([0, 1, 0, 0, 0], {atol: 1e-9});
  });

  it('keeps the likeliest token however small topP is', () => {
    expect(shares(random(1, 1e-9))).toBeAllClose([0, 1, 0, 0, 0], {atol: 1e-9});
  });

  it('never draws a token of no probability', () => {
    const closed = Float32Array.of(Number.NEGATIVE_INFINITY, 0, Number.NEGATIVE_INFINITY, 0);
    const rng = createRng(1, 'test');
    for (let i = 0; i < 100; i++) expect([1, 3]).toContain(pickToken(closed, random(1, 1), rng.uniform()));
    expect(pickToken(closed, random(1, 1), 1 - 2 ** -53)).toBe(3);
  });
});
