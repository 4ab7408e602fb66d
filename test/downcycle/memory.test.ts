import {mkdir} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {useScratch} from '../format/scratch.js';
import {runChild} from '../support/child.js';
import {missingTensorFlow} from '../support/engines.js';
import {FFN_WIDTH, LAYER_BYTES, SAMPLES, TOKENS, WIDTH, writeWideModel} from './wide-model.js';

const worker = new URL('./memory-worker.ts', import.meta.url);
const scratch = useScratch();
const TIMEOUT = 300_000;

/** Node with the compiled product, before an engine starts. The worker is TypeScript, whose compiler takes 80 MB more. */
const NODE = 117e6;
/** Node and TensorFlow, of which the libraries' pages are 350 MB, and three layers: one is held, the rest is on the move. */
const FLOOR = 600e6 + 3 * LAYER_BYTES;
/** Hidden states of the text, and what one layer makes of them on the way. */
const ACTIVATIONS = 4 * TOKENS * (2 * WIDTH + 4 * FFN_WIDTH);
/** What a profile keeps of every layer: means by sample, means, and the markers of tokens. */
const STATISTICS = 4 * (3 * SAMPLES * FFN_WIDTH + 3 * FFN_WIDTH + 10 * TOKENS);
/** Predictors, float32 [F, 128], and gradients, two of [F]. */
const MORE_STATISTICS = 4 * (130 * FFN_WIDTH);
/** Ridge regression: float64 sums [D, F], those of a batch here and there, and a solve in float64. */
const RIDGE = 40 * WIDTH * FFN_WIDTH;
/** Least squares: a float32 matrix [F, F], and in float64 the same, a copy that is factored and the factor. */
const REFIT = 28 * FFN_WIDTH ** 2;
/** Arrays of weights that were let go and wait to be collected: V8 begins after so much. Peaks of equal runs differ by it. */
const UNCOLLECTED = 128e6;

/** Layers of the models compared: one that stayed in memory would be seen. docs/log.md has the peaks of 8 and 32. */
const [FEW, MANY] = [2, 8];

type Stage = 'profile' | 'predictors' | 'cmoe' | 'proof' | 'refit';

/** Peak memory of each stage, in bytes; the first is a profile, from which the others convert; a proof is of cmoe's mixture. */
async function peaksOf(layers: number, stages: readonly Stage[]): Promise<number[]> {
  const [model, folder] = [scratch(`model-${layers}`), scratch(`results-${layers}`)];
  await mkdir(folder);
  await writeWideModel(model, layers);
  const peaks: number[] = [];
  for (const stage of stages) {
    const env = {TF_XLA_FLAGS: ''}; // each run compiles: programs kept from the first would make the second look smaller
    const found = (await runChild(worker, [model, folder, stage], env, TIMEOUT)) as {start: number; peak: number};
    peaks.push(NODE + found.peak - found.start);
  }
  return peaks;
}

describe.skipIf(missingTensorFlow !== null)('peak memory', () => {
  it(
    'of a profile, of conversions and of their proof is that of a few layers, however many a model has',
    async () => {
      const [profileOfFew] = await peaksOf(FEW, ['profile']);
      const [profile, cmoe, proof] = await peaksOf(MANY, ['profile', 'cmoe', 'proof']);
      const most = FLOOR + ACTIVATIONS + MANY * STATISTICS;
      expect(cmoe).toBeLessThan(most);
      expect(profile).toBeLessThan(most + UNCOLLECTED); // 735 MB by hand, but 817 of 814 once beside another test
      expect(proof).toBeLessThan(most + UNCOLLECTED); // three passes: the scale, the parent, the mixture
      expect(profile! - profileOfFew!).toBeLessThan((MANY - FEW) * STATISTICS + UNCOLLECTED);
    },
    TIMEOUT,
  );

  it(
    'of predictors, gradients and fits adds the equations of one layer',
    async () => {
      const statistics = STATISTICS + MORE_STATISTICS;
      const [predictors, refit] = await peaksOf(FEW, ['predictors', 'refit']);
      const most = FLOOR + ACTIVATIONS + RIDGE + FEW * statistics;
      expect(predictors).toBeLessThan(most + UNCOLLECTED);
      // Two passes over the model, regrouping and the fit, each of which leaves its own.
      expect(refit).toBeLessThan(most + REFIT + 2 * UNCOLLECTED);
    },
    TIMEOUT,
  );
});
