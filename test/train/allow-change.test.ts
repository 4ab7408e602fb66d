import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import {refuseFixed} from '../../src/train/fixed-keys.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {crashAfter, DENSE, tinyRun, tinyTrain, writeModel} from './support.js';

let folder = '';
/** A run of 4 steps that saves every 2; `steps` is a key of its config. */
const runOf = (steps: number, mode: TrainRun['mode'], allowsChange = false): TrainRun => ({
  ...tinyRun(folder, {
    ...{mode, allowsChange, engine: {device: 'wasm'}, data: {validation: {share: 0}}},
    train: {steps, batch: {sequences: 2}, checkpoint: {every: 2}},
  }),
  config: {yaml: `name: tiny\ntrain: {steps: ${steps}}\n`, hash: `steps ${steps}`},
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-change-'));
  await writeModel(join(folder, 'model'), DENSE);
});
afterAll(() => rm(folder, {recursive: true}));

describe('a run that went on with another config', () => {
  it('and was killed before it saved again goes on with that one', async () => {
    await expect(train(runOf(6, 'new'), crashAfter(3))).rejects.toThrow('crash');
    await expect(train(runOf(4, 'resume'))).rejects.toThrow('another config: train.steps (6, now 4)');
    await expect(train(runOf(4, 'resume', true), crashAfter(3))).rejects.toThrow('crash');
    await expect(train(runOf(6, 'resume'))).rejects.toThrow('another config: train.steps (4, now 6)');
    await expect(train(runOf(4, 'resume'), crashAfter(3))).rejects.toThrow('crash');
    await expect(train(runOf(6, 'resume', true), crashAfter(3)), 'and back').rejects.toThrow('crash');
    expect(await readFile(join(folder, 'run/config.yaml'), 'utf8')).toContain('steps: 6');
    expect(await train(runOf(6, 'resume'))).toMatchObject({step: 6, reason: 'completed'});
    const resumed = (await readRunLog(join(folder, 'run/log.jsonl'))).filter(({kind}) => kind === 'resume');
    expect(resumed.map((record) => ('changed' in record ? record.changed : undefined))).toEqual([
      ['train.steps (6, now 4)'],
      undefined,
      ['train.steps (4, now 6)'],
      undefined,
    ]);
  });
});

describe('within a run, whoever allows it,', () => {
  const full = {...runOf(4, 'resume'), train: tinyTrain()};
  const lora = {...full, train: tinyTrain({finetune: {kind: 'lora', rank: 2, targets: ['attention']}})};
  const refuse = (run: TrainRun, ...keys: string[]) => {
    refuseFixed(keys, {path: 'run/step-000002', trainer: {} as never}, run);
  };

  it.each([
    [full, 'train.finetune.kind (full, now parts)', 'what trains cannot change'],
    [full, 'model (a, now b)', 'the weights of the run are those of its checkpoint'],
    [full, 'arms.a.experts (4, now 8)', 'the weights of the run are those of its checkpoint'],
    [full, 'train.optimizer.kind (adamw, now adafactor)', 'an optimizer cannot go on with what another kept'],
    [full, 'train.ema.decay (not there, now 0.9)', 'running means begin with the run'],
    [lora, 'train.balance.kind (aux, now bias)', 'the selection biases of a LoRA run'],
  ])('%#: some things stay', (run, key, reason) => {
    expect(() => refuse(run, 'train.steps (4, now 6)', key)).toThrow(
      `${key} is another than when the run began: ${reason}`,
    );
  });

  it.each([
    [lora, 'model (a, now b)'],
    [full, 'train.ema.decay (0.9, now 0.99)'],
    [full, 'train.ema.decay (0.9, now not there)'],
    [full, 'train.balance.kind (aux, now bias)'],
    [full, 'train.optimizer.lr (1, now 2)'],
  ])('%#: others change', (run, key) => {
    expect(() => refuse(run, key)).not.toThrow();
  });
});
