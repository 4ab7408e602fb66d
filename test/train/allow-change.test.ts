import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import {refuseFixed} from '../../src/train/fixed-keys.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {UsageError} from '../../src/util/errors.js';
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
    const before = await readFile(join(folder, 'run/log.jsonl'));
    await expect(train(runOf(4, 'resume', true))).rejects.toThrow('has made 6 steps, and train.steps asks for 4');
    expect(await readFile(join(folder, 'run/log.jsonl'))).toEqual(before);
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
  /** Asks of a checkpoint that was made by one config, and of a run that has another. */
  const refuse = (run: TrainRun, before: string, now: string): Promise<void> => {
    const yaml = (own: string): string => `name: tiny\nother: {here: 1}\n${own}\n`;
    const trainer = {config: yaml(before)} as never;
    return refuseFixed({path: join(folder, 'none'), trainer}, {...run, config: {yaml: yaml(now), hash: now}});
  };

  it.each([
    [
      full,
      'train: {finetune: {kind: full}}',
      'train: {finetune: {kind: parts}}',
      'train.finetune.kind (full, now parts)',
      'what trains cannot change',
    ],
    [
      lora,
      'train: {finetune: {rank: 2}}',
      'train: {finetune: {rank: 4}}',
      'train.finetune.rank (2, now 4)',
      'what trains cannot change',
    ],
    [full, 'model: a', 'model: b', 'model (a, now b)', 'the weights of the run are those of its checkpoint'],
    [
      full,
      'arms: {a: {experts: 4}}',
      'arms: {a: {experts: 8}}',
      'arms.a.experts (4, now 8)',
      'the weights of the run are those of its checkpoint',
    ],
    [
      full,
      'arm: a\nprofile: {cv: tasks}',
      'arm: a\nprofile: {cv: samples}',
      'profile.cv (tasks, now samples)',
      'the weights of the run are those of its checkpoint',
    ],
    [
      full,
      'train: {optimizer: {kind: adamw}}',
      'train: {optimizer: {kind: muon}}',
      'train.optimizer.kind (adamw, now muon)',
      'an optimizer cannot go on with what another kept',
    ],
    [
      full,
      'train: {steps: 4}',
      'train: {steps: 6, ema: {decay: 0.9}}',
      'train.ema.decay (not there, now 0.9)',
      'running means begin with the run',
    ],
    [
      lora,
      'train: {balance: {kind: aux}}',
      'train: {balance: {kind: bias}}',
      'train.balance.kind (aux, now bias)',
      'the selection biases of a LoRA run',
    ],
  ])('%#: some things stay', async (run, before, now, key, reason) => {
    const error: unknown = await refuse(run, before, now).catch((found: unknown) => found);
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({
      message: expect.stringContaining(`${key} is another than when the run began: ${reason}`) as string,
      hint: 'Begin a run of another name with it.',
    });
  });

  it.each([
    [lora, 'model: a', 'model: b'],
    [full, 'profile: {cv: tasks}', 'profile: {cv: samples}'],
    [full, 'train: {ema: {decay: 0.9}}', 'train: {ema: {decay: 0.99}}'],
    [full, 'train: {steps: 4, ema: {decay: 0.9}}', 'train: {steps: 4}'],
    [full, 'train: {balance: {kind: aux}}', 'train: {balance: {kind: bias}}'],
    [full, 'train: {optimizer: {lr: 1}}', 'train: {optimizer: {lr: 2}}'],
    [lora, 'train: {finetune: {merge: true, dropout: 0}}', 'train: {finetune: {merge: false, dropout: 0.1}}'],
  ])('%#: others change', async (run, before, now) => {
    await expect(refuse(run, before, now)).resolves.toBeUndefined();
  });

  it('is asked of the checkpoint, whatever someone made of the config that lies beside it', async () => {
    const given = runOf(4, 'new');
    const as = (run: TrainRun, finetune: string): TrainRun => ({
      ...run,
      out: join(folder, 'edited'),
      config: {yaml: `name: tiny\ntrain: {finetune: {kind: ${finetune}}}\n`, hash: finetune},
    });
    await expect(train(as(given, 'full'), crashAfter(3))).rejects.toThrow('crash');
    const other = as({...given, ...{mode: 'resume', allowsChange: true}}, 'parts');
    await writeFile(join(folder, 'edited/config.yaml'), other.config.yaml);
    await expect(train(other)).rejects.toThrow('train.finetune.kind (full, now parts) is another than when');
  });
});
