import {describe, expect, it} from 'vitest';
import {type CrossOptions, crossPerplexity} from '../../../src/downcycle/dive/cross-perplexity.js';
import {type Pruning, prune} from '../../../src/downcycle/dive/prune.js';
import {openDense} from '../../../src/downcycle/model-source.js';
import {ModelError} from '../../../src/util/errors.js';
import {useScratch} from '../../format/scratch.js';
import {referenceLoss} from '../../golden/reference.js';
import {TINY_LLAMA} from '../../model/tiny-llama.js';
import {expectNoLeak, onEngine, withEngine} from '../../support/engines.js';
import {NUM_TASKS, prunedReference, SAMPLE, tinyCalibration, tinyWeights, watched} from './tiny-dive.js';

const scratch = useScratch();
const WIDTH = 9;
const calibration = tinyCalibration();
const profiled = () => watched(calibration, scratch('partial'));
const TASKS = Array.from({length: NUM_TASKS}, (_, task) => task);

async function measure(models: readonly (readonly Pruning[])[], options?: CrossOptions) {
  const source = await openDense(TINY_LLAMA);
  try {
    return await crossPerplexity(source, calibration, models, options);
  } finally {
    await source.folder.close();
  }
}

describe('crossPerplexity', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'is that of the model pruned by hand, for every task on every other', async () => {
      const profile = await profiled();
      const layers = (task: number): Pruning[] => profile.layers.map((layer) => prune(layer, [task], WIDTH));
      const found = await expectNoLeak(() => measure(TASKS.map(layers)));
      const weights = await tinyWeights();
      const expected = TASKS.map((pruned) =>
        TASKS.map((task) => {
          const model = prunedReference(weights, profile, [pruned], WIDTH);
          const losses = [0, 1].map((sample) => {
            const begin = (2 * task + sample) * SAMPLE;
            return referenceLoss(model, [...calibration.tokens.subarray(begin, begin + SAMPLE)]);
          });
          return Math.exp((losses[0]! + losses[1]!) / 2);
        }),
      );
      expect(found).toBeAllClose(expected, {rtol: 1e-5, atol: 0});
      expect(new Set(found.flat()).size).toBe(9);
    });
  }

  onEngine('wasm', 'is the same for models that keep everything, to the bit', async () => {
    const profile = await profiled();
    const found = await measure(TASKS.map((task) => profile.layers.map((layer) => prune(layer, [task], 24))));
    expect(found[1]).toEqual(found[0]);
    expect(found[2]).toEqual(found[0]);
  });

  onEngine(
    'wasm',
    'does not depend on how many models go through a layer at once, and tells how far it is',
    async () => {
      const profile = await profiled();
      const models = TASKS.map((task) => profile.layers.map((layer) => prune(layer, [task], WIDTH)));
      const told: number[][] = [];
      const onLayer = (...progress: number[]): void => void told.push(progress);
      const expected = await measure(models);
      const textBytes = calibration.tokens.length * 16 * 4;
      for (const hiddenBytes of [1, 2 * textBytes])
        expect(await measure(models, {onLayer, hiddenBytes})).toEqual(expected);
      expect(told).toEqual([...[1, 2, 3, 4, 5, 6].map((done) => [done, 6]), ...[1, 2, 3, 4].map((done) => [done, 4])]);
    },
  );

  it('refuses a model whose loss is not finite, naming the task', () =>
    withEngine('wasm', async () => {
      const profile = await profiled();
      const broken = profile.layers.map((layer) => ({...prune(layer, [0], 3), mean_F: new Float32Array(24).fill(NaN)}));
      await expect(measure([broken])).rejects.toThrow(ModelError);
      await expect(measure([broken])).rejects.toThrow(
        'The loss of a pruned model on the text of prose is not a finite number.',
      );
    }));
});
