import {execFile} from 'node:child_process';
import {mkdir} from 'node:fs/promises';
import {promisify} from 'node:util';
import {describe, expect, it} from 'vitest';
import {useScratch} from '../format/scratch.js';
import {missingTensorFlow} from '../support/engines.js';
import {modulePath, NODE_OPTIONS} from '../support/program.js';
import {FFN_WIDTH, LAYER_BYTES, SAMPLES, SEQUENCE_LENGTH, TOKENS, VOCAB, WIDTH, writeWideModel} from './wide-model.js';

const scratch = useScratch();
const TIMEOUT = 300_000;

/** Node and TensorFlow, of which the libraries' pages are 350 MB, and three layers: one is held, the rest is on the move. */
const FLOOR = 600e6 + 3 * LAYER_BYTES;
/** Hidden states of the text, and what one layer makes of them on the way. */
const ACTIVATIONS = 4 * TOKENS * (2 * WIDTH + 4 * FFN_WIDTH);
/** What a profile keeps of every layer in memory: means by sample, means, and the markers of tokens. */
const STATISTICS = 4 * (3 * SAMPLES * FFN_WIDTH + 3 * FFN_WIDTH + 10 * TOKENS);
/** Arrays that were let go and wait to be collected: peaks of equal runs differ by as much where other tests run beside them. */
const UNCOLLECTED = 64e6;
/** The TypeScript compiler, where the product is not built. */
const COMPILER = NODE_OPTIONS.length > 0 ? 128e6 : 0;

/** A peak above its bound is measured once more: what runs beside it puts off what is let go, and nothing else lowers a peak. */
const ONCE_MORE = {timeout: TIMEOUT, retry: 1};

/** Layers of the models compared: one that stayed in memory would be seen. docs/log.md has the peaks of 8 and 32. */
const [FEW, MANY] = [2, 8];

type Stage = 'profile' | 'predictors' | 'cmoe' | 'proof' | 'refit';

/** Peak memory of each stage, in bytes; the first is a profile, from which the others convert; a proof is of cmoe's mixture. */
async function peaksOf(layers: number, stages: readonly Stage[]): Promise<number[]> {
  const [model, folder] = [scratch(`model-${layers}`), scratch(`results-${layers}`)];
  await mkdir(folder);
  await writeWideModel(model, layers);
  const peaks: number[] = [];
  for (const stage of stages) peaks.push((await peakOf({model, folder, stage})) - COMPILER);
  return peaks;
}

async function peakOf(how: {model: string; folder: string; stage: Stage}): Promise<number> {
  const order = {...how, samples: SAMPLES, sequenceLength: SEQUENCE_LENGTH, vocab: VOCAB};
  const args = [...NODE_OPTIONS, 'test/downcycle/memory-worker.mjs', modulePath('*'), JSON.stringify(order)];
  // Each process compiles: programs kept from the first would make the second look smaller.
  const env = {...process.env, TF_XLA_FLAGS: '', XLA_FLAGS: undefined};
  const {stdout} = await promisify(execFile)(process.execPath, args, {env, timeout: TIMEOUT});
  return (JSON.parse(stdout) as {peak: number}).peak;
}

describe.skipIf(missingTensorFlow !== null)('peak memory', () => {
  it(
    'of a profile, of conversions and of their proof is that of a few layers, however many a model has',
    async () => {
      const [profileOfFew] = await peaksOf(FEW, ['profile']);
      const [profile, cmoe, proof] = await peaksOf(MANY, ['profile', 'cmoe', 'proof']);
      const most = FLOOR + ACTIVATIONS + MANY * STATISTICS;
      for (const peak of [profile, cmoe, proof]) expect(peak).toBeLessThan(most);
      expect(profile! - profileOfFew!).toBeLessThan((MANY - FEW) * STATISTICS + UNCOLLECTED);
    },
    TIMEOUT,
  );

  it(
    'of predictors, gradients and a refit is below the same bound, but for what waits to be collected',
    ONCE_MORE,
    async () => {
      const [predictors, refit] = await peaksOf(FEW, ['predictors', 'refit']);
      const most = FLOOR + ACTIVATIONS + FEW * STATISTICS;
      for (const peak of [predictors, refit]) expect(peak).toBeLessThan(most + UNCOLLECTED); // without it when nothing runs beside
    },
  );
});
