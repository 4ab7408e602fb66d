import {describe, expect, it} from 'vitest';
import {createVariable} from '../../src/engine/variable.js';
import {type ContinueOptions, createGenerator, type Generation} from '../../src/eval/generator.js';
import {parameterSpecs, treeOf} from '../../src/model/parameters.js';
import {MOE, randomModel, VOCAB} from '../golden/random-model.js';
import {referenceLogits} from '../golden/reference.js';
import {type HostModel, specsOf} from '../golden/run-model.js';
import {expectNoLeak, missingTensorFlow, onEngine, withEngine} from '../support/engines.js';
import {floats} from '../support/host.js';

const model = randomModel();
const prompt = [3, 14, 15, 9];
const greedy = {maxTokens: 8, sampling: {kind: 'greedy'}} as const;
const random = {maxTokens: 12, sampling: {kind: 'random', temperature: 1, topP: 0.9}} as const;
const ENGINES = ['tensorflow-compiled', 'wasm'] as const;

/** Continues prompts one after the other with one generator, and expects nothing left behind. */
async function generate(
  options: readonly ContinueOptions[],
  {of = model, start = prompt, isPrepared = false}: {of?: HostModel; start?: number[]; isPrepared?: boolean} = {},
): Promise<Generation[]> {
  return expectNoLeak(async () => {
    const variables = specsOf(of.architecture).map(({path, shape}) =>
      createVariable(path, shape, of.weights[path]!.values as Float32Array),
    );
    const parameters = treeOf(parameterSpecs(of.architecture), variables);
    try {
      const generator = createGenerator({architecture: of.architecture, parameters});
      const results: Generation[] = [];
      if (isPrepared) await generator.prepare(start.length, options[0]!.maxTokens);
      try {
        for (const one of options) results.push(await generator.generate(start, one));
      } finally {
        generator.dispose();
      }
      return results;
    } finally {
      for (const variable of variables) variable.dispose();
    }
  });
}

/** The likeliest token after another, over and over, by the float64 decoder. */
function likeliest(count: number): number[] {
  const tokens = [...prompt];
  while (tokens.length < prompt.length + count) {
    const last = referenceLogits(model, tokens).at(-1)!;
    tokens.push(last.indexOf(Math.max(...last)));
  }
  return tokens.slice(prompt.length);
}

const engine = missingTensorFlow === null ? 'tensorflow-compiled' : 'wasm';

describe('a generator', () => {
  for (const name of ENGINES) {
    onEngine(name, 'adds the likeliest token each time when greedy', async () => {
      const [result] = await generate([greedy]);
      expect(result).toEqual({tokens: Int32Array.from(likeliest(8)), end: 'length'});
    });
  }

  it('adds the same tokens when it is prepared, and when it is used again', () =>
    withEngine(engine, async () => {
      const results = await generate([greedy, greedy], {isPrepared: true});
      for (const {tokens} of results) expect(tokens).toEqual(Int32Array.from(likeliest(8)));
    }));

  it('goes on with the likeliest token when there are more than it made room for', () =>
    withEngine(engine, async () => {
      const long = randomModel({ffn: [MOE], contextLength: 1024});
      const [result] = await generate([{...greedy, maxTokens: 560}], {of: long}); // room for 512, then for 1024
      const all = [...prompt, ...result!.tokens];
      expect(all).toHaveLength(564);
      const logits = referenceLogits(long, all);
      for (const [i, token] of all.entries()) {
        if (i < prompt.length) continue;
        const before = logits[i - 1]!;
        expect(Math.max(...before) - before[token]!).toBeLessThan(1e-4); // but where two are as good as equal
      }
    }));

  it('shows each token as it comes, and ends after one that the caller ends it at', () =>
    withEngine('wasm', async () => {
      const seen: number[] = [];
      const onToken = (token: number) => (seen.push(token) === 3 ? 'stop' : undefined);
      const [result] = await generate([{...greedy, onToken}]);
      expect(result).toEqual({tokens: Int32Array.from(likeliest(3)), end: 'stop'});
      expect(seen).toEqual(likeliest(3));
    }));

  it('chooses among the ids of the vocabulary only', () =>
    withEngine('wasm', async () => {
      const options = {...random, sampling: {...random.sampling, topP: 1}, vocabulary: 5};
      const [result] = await generate([options]);
      expect(Math.max(...result!.tokens)).toBeLessThan(5);
    }));

  it('stops before the first token that ends a text', () =>
    withEngine(engine, async () => {
      const expected = likeliest(8);
      const stop = expected[5]!;
      const [result] = await generate([{...greedy, stopIds: [stop]}]);
      expect(result).toEqual({tokens: Int32Array.from(expected.slice(0, expected.indexOf(stop))), end: 'stop'});
    }));

  it('adds nothing when no token is asked for', () =>
    withEngine(engine, async () => {
      expect(await generate([{...greedy, maxTokens: 0}])).toEqual([{tokens: new Int32Array(0), end: 'length'}]);
    }));

  it('draws the same tokens from the same seed and others from another', () =>
    withEngine(engine, async () => {
      const [first, again, other] = await generate([1, 1, 2].map((seed) => ({...random, seed})));
      expect(again).toEqual(first);
      expect(other).not.toEqual(first);
    }));
});

describe('a generator refuses', () => {
  const refusal = (options: ContinueOptions, rest: Parameters<typeof generate>[1] = {}): Promise<unknown> =>
    withEngine('wasm', () => generate([options], rest));

  it('a text longer than the context of the model', async () => {
    await expect(refusal({...greedy, maxTokens: 61})).rejects.toMatchObject({
      name: 'UsageError',
      message: 'A prompt of 4 tokens and 61 new ones are more than the 64 positions of the model.',
    });
  });

  it('a number of tokens that is none', async () => {
    await expect(refusal({...greedy, maxTokens: -1})).rejects.toMatchObject({
      name: 'UsageError',
      message: '-1 new tokens were asked for; a whole number is needed.',
    });
  });

  it('an impossible temperature', async () => {
    await expect(refusal({maxTokens: 1, sampling: {kind: 'random', temperature: 0, topP: 1}})).rejects.toMatchObject({
      name: 'UsageError',
      message: 'temperature is 0; a number above 0 is needed.',
    });
  });

  it('an impossible topP', async () => {
    await expect(refusal({maxTokens: 1, sampling: {kind: 'random', temperature: 1, topP: 1.5}})).rejects.toMatchObject({
      name: 'UsageError',
      message: 'topP is 1.5; a share above 0 and at most 1 is needed.',
    });
  });

  it('an impossible topK', async () => {
    const sampling = {kind: 'random', temperature: 1, topP: 1, topK: 0} as const;
    await expect(refusal({maxTokens: 1, sampling})).rejects.toMatchObject({
      name: 'UsageError',
      message: 'topK is 0; a whole number of at least 1 is needed.',
    });
  });

  it('an empty prompt', async () => {
    await expect(refusal(greedy, {start: []})).rejects.toMatchObject({
      name: 'DataError',
      message: 'The prompt has no tokens.',
    });
  });

  it('a token outside the vocabulary', async () => {
    await expect(refusal(greedy, {start: [1, VOCAB]})).rejects.toMatchObject({
      name: 'DataError',
      message: `The prompt has token ${VOCAB}; the model's vocabulary is 0 to ${VOCAB - 1}.`,
    });
  });

  it('to draw from logits that are not numbers', async () => {
    const {shape, values} = model.weights.norm!;
    const norm = floats(shape, new Array<number>(values.length).fill(Number.NaN));
    await expect(refusal(greedy, {of: {...model, weights: {...model.weights, norm}}})).rejects.toMatchObject({
      name: 'ModelError',
      message: 'The logits after token 4 are not all numbers.',
    });
  });
});
