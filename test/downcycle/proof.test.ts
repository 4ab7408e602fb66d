import {readFile, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {methodSchema} from '../../src/downcycle/options.js';
import {compareLogits, proveConversion} from '../../src/downcycle/proof.js';
import {scratch as fromScratch, upcycle} from '../../src/downcycle/upcycle.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import {DataError, ModelError} from '../../src/util/errors.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, tinyArchitecture, writeTinyLlama} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine, withEngine} from '../support/engines.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();
const rng = createRng(5, 'tokens');
const sequence = (length: number): number[] => Array.from({length}, () => rng.int(32));
const sequences = [sequence(24), sequence(24)];
const random = splitOptions({method: 'random', experts: 4, shared: 2, topK: 1, outputScale: 'none'});
const split = (changes: object = {}) =>
  convert({model: TINY_LLAMA, out: scratch('moe'), method: random, seed: 7, ...changes});

describe('proveConversion', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'passes for a random split, within float32 noise', () =>
      expectNoLeak(async () => {
        await split();
        const proof = await proveConversion(TINY_LLAMA, scratch('moe'), sequences);
        expect(proof).toMatchObject({passed: true, tokens: 48});
        expect(proof.maxLogitDifference).toBeLessThan(5e-6);
        expect(proof.maxLogitDifference).toBeGreaterThan(0);
      }),
    );
  }

  for (const words of [
    {method: 'moefication'},
    {method: 'llama-moe', split: 'k-means'},
    {method: 'llama-moe', split: 'co-activation'},
    {method: 'llama-moe', split: 'importance'},
  ]) {
    onEngine('wasm', `passes for ${Object.values(words).join(', ')}, with a shared part and without`, async () => {
      const {layers, metadata} = await tinyProfile();
      const gradients = {
        importance_F: Float32Array.from({length: 24}, (_, id) => (7 * id) % 24),
        sensitivity_F: new Float32Array(24),
      };
      const profile = {metadata, layers: layers.map((layer) => ({...layer, gradients}))};
      for (const shared of [0, 2]) {
        const method = splitOptions({...words, experts: 4, shared, topK: 1});
        await split({method, profile, out: scratch(`moe-${shared}`)});
        expect(await proveConversion(TINY_LLAMA, scratch(`moe-${shared}`), sequences)).toMatchObject({passed: true});
      }
    });
  }

  onEngine('wasm', 'passes for copies, whether or not they are renormalised', async () => {
    const method = {method: 'sparse-upcycle', experts: 3, topK: 1, renormalise: false} as const;
    await upcycle({model: TINY_LLAMA, out: scratch('moe'), method, seed: 7});
    expect(await proveConversion(TINY_LLAMA, scratch('moe'), sequences)).toMatchObject({passed: true});
  });

  for (const dtype of ['F32', 'BF16'] as const) {
    for (const [shards, renormalise] of [
      [2, true],
      [4, false],
      [3, true],
    ] as const) {
      const weights = renormalise ? 'renormalised' : 'plain';
      onEngine('wasm', `passes for copies of ${shards} shards, ${weights}, in ${dtype}`, async () => {
        const model = await writeTinyLlama(scratch('dense'), {dtype});
        const method = {method: 'granular-upcycle', experts: 2 * shards, shards, topK: shards, renormalise} as const;
        await upcycle({model, out: scratch('moe'), method, seed: 7});
        const {passed, limit} = await proveConversion(model, scratch('moe'), sequences);
        expect(passed).toBe(true);
        const isExact = dtype === 'F32' || shards !== 3; // 16 bits carry times 2 and times 8 exactly
        if (isExact) expect(limit).toBeLessThan(1e-3);
        else expect(limit).toBeLessThan(0.2);
      });
    }
  }

  onEngine('wasm', 'fails when one shard went astray', async () => {
    const method = {method: 'granular-upcycle', experts: 4, shards: 2, topK: 2, renormalise: true} as const;
    await upcycle({model: TINY_LLAMA, out: scratch('moe'), method, seed: 7});
    await swapRows(`${scratch('moe')}/model.safetensors`, 'model.layers.0.mlp.experts.2.up_proj.weight');
    expect(await proveConversion(TINY_LLAMA, scratch('moe'), sequences)).toMatchObject({passed: false});
  });

  onEngine('wasm', 'refuses copies that were changed on purpose, and passes for those that were not', async () => {
    const drop = {method: 'drop-upcycle', experts: 2, topK: 1, renormalise: true} as const;
    await upcycle({model: TINY_LLAMA, out: scratch('half'), method: {...drop, ratio: 0.5}, seed: 7});
    const refused = proveConversion(TINY_LLAMA, scratch('half'), sequences);
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(
      'half is not meant to equal a dense model: 50% of the neurons of each copy were drawn anew.',
    );
    await upcycle({model: TINY_LLAMA, out: scratch('whole'), method: {...drop, ratio: 0}, seed: 7});
    expect(await proveConversion(TINY_LLAMA, scratch('whole'), sequences)).toMatchObject({passed: true});
  });

  onEngine('wasm', 'fails when one neuron went astray', async () => {
    await split();
    await swapRows(`${scratch('moe')}/model.safetensors`, 'model.layers.0.mlp.experts.2.up_proj.weight');
    expect(await proveConversion(TINY_LLAMA, scratch('moe'), sequences)).toMatchObject({passed: false});
  });

  onEngine('wasm', 'takes out the factors that were folded into experts', async () => {
    const method = methodSchema.parse({method: 'expertweaver', experts: 4, shared: 2, topK: 2, outputScale: 'match'});
    for (const dtype of ['F32', 'BF16'] as const) {
      const model = await writeTinyLlama(scratch(`dense-${dtype}`), {dtype});
      const out = scratch(`moe-${dtype}`);
      await split({model, out, method, profile: await tinyProfile(model), routedScale: [3.3, 0.7]});
      const {passed, limit} = await proveConversion(model, out, sequences);
      expect(passed).toBe(true);
      expect(limit).toBeLessThan(dtype === 'F32' ? 1e-3 : 0.2);
    }
  });

  it('refuses a model that was drawn at random', async () => {
    await fromScratch({architecture: tinyArchitecture, out: scratch('moe'), seed: 1});
    await expect(proveConversion(TINY_LLAMA, scratch('moe'), sequences)).rejects.toThrow(ModelError);
  });

  it('refuses a folder without a record', async () => {
    await expect(proveConversion(TINY_LLAMA, TINY_LLAMA, sequences)).rejects.toThrow(
      'downcycle.json: there is no such file',
    );
  });
});

describe('what a proof is made on', () => {
  it.each([
    [[[1, 32]], 'token 32 of the text is outside the vocabulary of 32'],
    [[[1, -1]], 'token -1 of the text is outside'],
    [[[1], []], 'sequences of equally many tokens, one at least; those given have 1, 0.'],
    [[[1, 2], [1]], 'those given have 2, 1.'],
    [[], 'those given have none.'],
  ])('refuses %j', (tokens, message) =>
    withEngine('wasm', async () => {
      await split();
      const refused = proveConversion(TINY_LLAMA, scratch('moe'), tokens);
      await expect(refused).rejects.toThrow(DataError);
      await expect(refused).rejects.toThrow(message);
    }),
  );
});

it('a proof names both models where one has another vocabulary', () =>
  withEngine('wasm', async () => {
    await split();
    await fromScratch({architecture: {...tinyArchitecture, vocab: 40}, out: scratch('other'), seed: 1});
    const refused = proveConversion(scratch('other'), scratch('moe'), sequences);
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(/moe has a vocabulary of 32, .*other one of 40: it is not its parent\.$/);
  }));

describe('compareLogits', () => {
  const compare = (a: number[], b: number[]) => compareLogits(Float32Array.from(a), Float32Array.from(b), 0.01, 1);

  it('measures the largest difference against the largest logit', () => {
    expect(compare([0, -8, 2], [0.0625, -8, 2])).toEqual({
      maxLogitDifference: 0.0625,
      limit: 0.08,
      passed: true,
      tokens: 1,
    });
    expect(compare([0, 0.5], [0.0625, 0.5])).toMatchObject({limit: 0.01, passed: false});
  });

  it('never passes what is not a number', () => {
    expect(() => compare([0, Number.NaN], [0, Number.NaN])).toThrow(ModelError);
    expect(() => compare([Number.POSITIVE_INFINITY], [Number.POSITIVE_INFINITY])).toThrow(ModelError);
    expect(() => compare([0], [Number.NaN])).toThrow(ModelError);
  });

  it('refuses lists of different lengths', () => {
    expect(() => compare([0, 1], [0])).toThrow(RangeError);
  });
});

/** Exchanges the first two rows of a tensor in its file. */
async function swapRows(path: string, name: string): Promise<void> {
  const file = await openSafetensors(path);
  const {begin, end, shape} = file.info(name);
  await file.close();
  const bytes = await readFile(path);
  const rowBytes = (end - begin) / shape[0]!;
  const first = Buffer.from(bytes.subarray(begin, begin + rowBytes));
  bytes.copy(bytes, begin, begin + rowBytes, begin + 2 * rowBytes);
  first.copy(bytes, begin + rowBytes);
  await writeFile(path, bytes);
}
