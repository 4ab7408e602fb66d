import {join} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import type {TrainInput} from '../../../src/train/options.js';
import {train} from '../../../src/train/run.js';
import {ConfigError} from '../../../src/util/errors.js';
import {DENSE, exactLines, experts, type RunChanges, tempFolder, tiny, tinyRun, writeModel} from '../support.js';

vi.setConfig({testTimeout: 240_000});

type Routing = NonNullable<TrainInput['routing']>;

const KINDS: readonly [Routing, Partial<TrainInput>][] = [
  [{kind: 'jitter', amount: 0.5}, {}],
  [{kind: 'noisy'}, {balance: {kind: 'cv2'}}],
  [{kind: 'expert-dropout', share: 0.25}, {}],
];

describe('routing in training', () => {
  it.each(KINDS)('%o is that of its seed and step, whenever the run was stopped', async (routing, options) => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), tiny([experts(8, 1)]));
    const changes = (out: string, more: Partial<TrainInput> = {}): RunChanges => ({
      out,
      engine: {device: 'wasm'},
      train: {steps: 4, batch: {sequences: 2, accumulate: 2}, routing, ...options, ...more},
    });
    const lines = async (out: string, more: RunChanges): Promise<string[]> => {
      await train(tinyRun(folder, more));
      return exactLines(join(folder, out));
    };
    const whole = await lines('whole', changes('whole'));
    await train(tinyRun(folder, changes('halved')), (event) => {
      if (event.kind === 'step' && event.step === 2) process.emit('SIGTERM', 'SIGTERM');
    });
    expect(await lines('halved', {...changes('halved'), mode: 'resume'})).toEqual(whole);
    const plain = await lines('plain', changes('plain', {routing: {kind: 'as-is'}}));
    expect(plain[0], 'validation is as the model says').toBe(whole[0]);
    expect(plain[1], 'training is not').not.toBe(whole[1]);
  });

  it('is not taken notice of in a dense model, which is said', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const notes: string[] = [];
    const run = tinyRun(folder, {engine: {device: 'wasm'}, train: {steps: 1, routing: {kind: 'noisy'}}});
    await train(run, (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(notes).toContain('The model has no routers: train.routing (noisy) is ignored.');
  });
});

describe('routing that a model cannot be trained with', () => {
  const share = (topK: number, of: number) => [experts(8, topK), {kind: 'expert-dropout', share: of}] as const;

  it.each([
    ['a share of experts that is none', ...share(1, 0.05), 'train.routing.share: 0.05 of 8 experts', 'Raise it.'],
    ['dropout where all are used', ...share(8, 0.5), 'a token uses 8, leaves out none', 'every token uses all of them'],
  ] as const)('is refused: %s', async (_, layout, routing, message, hint) => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), tiny([layout]));
    const run = tinyRun(folder, {engine: {device: 'wasm'}, train: {steps: 1, routing}});
    const error: unknown = await train(run).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).message).toContain(message);
    expect((error as ConfigError).hint).toContain(hint);
  });
});
