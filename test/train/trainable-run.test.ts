import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {estimateRun} from '../../src/train/estimate.js';
import {train} from '../../src/train/run.js';
import {ConfigError, DataError, ModelError} from '../../src/util/errors.js';
import {DENSE, experts, ROUTED, type RunChanges, tiny, tinyRun, writeModel} from './support.js';

let folder = '';
const pathOf = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-trainable-'));
  await writeModel(pathOf('dense'), DENSE);
  await writeModel(pathOf('routed'), ROUTED);
  await writeModel(pathOf('uneven'), tiny([experts(8, 2), experts(4, 2)]));
  await writeModel(pathOf('wide'), {...DENSE, vocab: 300});
  await writeModel(pathOf('short'), {...DENSE, contextLength: 16});
  await writeModel(pathOf('stranger'), DENSE);
  const path = join(pathOf('stranger'), 'tokenizer.json');
  await writeFile(path, ' ', {flag: 'a'});
});
afterAll(() => rm(folder, {recursive: true}));

const taughtBy = (name: string) => (): RunChanges => ({model: 'dense', train: {distill: {from: pathOf(name)}}});
const CASES: readonly (readonly [string, () => RunChanges, unknown, RegExp])[] = [
  [
    'a teacher of other words',
    taughtBy('wide'),
    ModelError,
    /wide has 300 words instead of 274 and cannot teach .*dense/,
  ],
  [
    'a teacher of another tokenizer',
    taughtBy('stranger'),
    ModelError,
    /stranger has another tokenizer and cannot teach/,
  ],
  ['a teacher of few positions', taughtBy('short'), DataError, /rows of 32 tokens are asked for, .*short has 16/],
  ['rows that are too long', () => ({model: 'short'}), DataError, /^Rows of 32 tokens are asked for, .*short has 16/],
  [
    'layers that cannot be balanced together',
    () => ({model: 'uneven', train: {balance: {kind: 'pooled'}}}),
    ConfigError,
    /^train\.balance\.kind: pooled takes all layers/,
  ],
  [
    'a routing that biases would work against',
    () => ({model: 'routed', train: {routing: {kind: 'expert-dropout'}, balance: {kind: 'bias'}}}),
    ConfigError,
    /bias would move towards experts that train.routing.kind expert-dropout leaves out/,
  ],
  [
    'a part that the model does not have',
    () => ({model: 'dense', train: {finetune: {kind: 'parts', train: ['experts']}}}),
    ConfigError,
    /the model has no experts/,
  ],
];

describe('what a run cannot be trained with', () => {
  it.each(CASES)('%s: is refused by train and by its estimate alike', async (_, changes, of, message) => {
    const run = tinyRun(folder, changes());
    for (const ask of [train, estimateRun]) {
      const error: unknown = await ask(run).catch((found: unknown) => found);
      expect(error).toBeInstanceOf(of);
      expect(error).toMatchObject({
        message: expect.stringMatching(message) as string,
        hint: expect.any(String) as string,
      });
    }
  });
});
