import {existsSync} from 'node:fs';
import {mkdir, mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import type {EvalRecord} from '../../src/format/run-record.js';
import {loadModel} from '../../src/model/model.js';
import {writeReport} from '../../src/report/report.js';
import {type BestLoss, isOutOfPatience, withValidation} from '../../src/train/best.js';
import {checkpointName, pruneCheckpoints} from '../../src/train/checkpoint.js';
import type {TrainEvent} from '../../src/train/event.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {ConfigError, UsageError} from '../../src/util/errors.js';
import {crashAfter, DENSE, exactLines, type RunChanges, tinyRun, writeModel} from './support.js';

vi.setConfig({testTimeout: 120_000});

let folder = '';
const pathOf = (name: string): string => join(folder, name);
const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});
/** A rate so high that the validation loss goes up and down. */
const WAVERING = {
  steps: 11,
  optimizer: {lr: 0.08},
  batch: {sequences: 2},
  validation: {every: 1, maxRows: 16},
} as const;
const evalsOf = async (out: string): Promise<{step: number; loss: number}[]> =>
  (await readRunLog(pathOf(`${out}/log.jsonl`)))
    .filter((record): record is EvalRecord => record.kind === 'eval')
    .map(({step, loss}) => ({step, loss: loss!}));
const stepsIn = async (out: string): Promise<number[]> =>
  (await readdir(pathOf(out)))
    .filter((name) => name.startsWith('step-'))
    .map((name) => Number(name.slice(5)))
    .sort((a, b) => a - b);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-best-'));
  await writeModel(pathOf('model'), DENSE);
  await train(wasm({out: 'plain', train: WAVERING}));
});
afterAll(() => rm(folder, {recursive: true}));

describe('the best loss', () => {
  it('is the lowest, the first of equal ones, and counts the validations since', () => {
    const bestOf = (losses: readonly number[]): BestLoss | null =>
      losses.reduce<BestLoss | null>((best, loss, i) => withValidation(best, i * 10, loss), null);
    expect(bestOf([])).toBeNull();
    expect(bestOf([Number.NaN])).toBeNull();
    expect(bestOf([4, 3, 3, Number.NaN])).toEqual({step: 10, loss: 3, since: 2});
    expect([2, 3, undefined].map((patience) => isOutOfPatience(bestOf([3, 4, 5]), patience))).toEqual([
      true,
      false,
      false,
    ]);
  });
});

describe('the best checkpoint', () => {
  const changes: RunChanges = {train: {...WAVERING, checkpoint: {every: 5, keep: 1, best: true}}};

  it('is kept besides the newest, and named', async () => {
    await train(wasm({...changes, out: 'kept'}));
    const evals = await evalsOf('kept');
    expect(evals).toEqual(await evalsOf('plain'));
    const best = evals.reduce((a, b) => (b.loss < a.loss ? b : a));
    expect(best.step, 'this run is best on its way').toBeLessThan(11);
    expect(best.step).toBeGreaterThan(0);
    expect(JSON.parse(await readFile(pathOf('kept/best.json'), 'utf8'))).toEqual(best);
    expect(await stepsIn('kept')).toEqual([best.step, 11]);
  });

  it('is the same of a run that was killed, whether or not the best came before', async () => {
    for (const step of [2, 6, 10]) {
      const out = `killed-${step}`;
      await expect(train(wasm({...changes, out}), crashAfter(step))).rejects.toThrow('crash');
      await train(wasm({...changes, out, mode: 'resume'}));
      const kinds = ['step', 'eval', 'checkpoint'];
      expect(await exactLines(pathOf(out), kinds)).toEqual(await exactLines(pathOf('kept'), kinds));
      expect(await stepsIn(out)).toEqual(await stepsIn('kept'));
      expect(await readFile(pathOf(`${out}/best.json`))).toEqual(await readFile(pathOf('kept/best.json')));
    }
  });
});

describe('pruning', () => {
  it('spares the best of the checkpoint to go on from, too', async () => {
    const run = pathOf('pruned');
    const loader = {version: 2, seed: 7, rng: [1, 2, 3, 4], sources: []};
    const put = async (step: number, more: object): Promise<void> => {
      const path = join(run, checkpointName(step));
      await mkdir(path, {recursive: true});
      const state = {format: 1, configHash: 'x', step, tokens: 0, flops: 0, seconds: 0, loader, ...more};
      await writeFile(join(path, 'trainer.json'), JSON.stringify(state));
    };
    const best = (step: number): object => ({best: {step, loss: 1, since: 0}});
    await put(5, best(5));
    await put(10, best(10));
    await put(15, best(10));
    await put(20, {...best(20), light: true});
    await pruneCheckpoints(run, 1, 20);
    expect(await stepsIn('pruned')).toEqual([10, 15, 20]);
  });
});

describe('a run without patience left', () => {
  const changes: RunChanges = {train: {...WAVERING, patience: 2}};

  it('ends after so many validations without a lower loss, says why, and is complete', async () => {
    const notes: string[] = [];
    const evals = await evalsOf('plain');
    const end = evals.findIndex(
      ({loss}, i) =>
        i >= 2 && Math.min(...evals.slice(0, i - 1).map((each) => each.loss)) <= Math.min(loss, evals[i - 1]!.loss),
    );
    expect(end, 'this run gives up on its way').toBeLessThan(11);
    const result = await train(wasm({...changes, out: 'early'}), (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(result).toMatchObject({step: end, reason: 'early'});
    expect(await evalsOf('early')).toEqual(evals.slice(0, end + 1));
    expect(notes.join()).toMatch(/^ended early: held-out loss was least at step \d+ \(\d\.\d{3}\)$/);
    expect((await readRunLog(pathOf('early/log.jsonl'))).at(-1)).toMatchObject({
      kind: 'end',
      step: end,
      reason: 'early',
    });
    expect(await stepsIn('early')).toEqual([end]);
    const log = await readFile(pathOf('early/log.jsonl'), 'utf8');
    expect(await train(wasm({...changes, out: 'early', mode: 'resume'}))).toEqual(result);
    expect(await readFile(pathOf('early/log.jsonl'), 'utf8')).toBe(log);
  });

  it('does not go on when it was killed just before its end was logged', async () => {
    const log = await readFile(pathOf('early/log.jsonl'), 'utf8');
    const lines = log.trimEnd().split('\n');
    expect(lines.at(-1)).toContain('"kind":"end"');
    await writeFile(pathOf('early/log.jsonl'), `${lines.slice(0, -1).join('\n')}\n`);
    const evals = await evalsOf('early');
    expect(await train(wasm({...changes, out: 'early', mode: 'resume'}))).toMatchObject({reason: 'early'});
    expect(await evalsOf('early')).toEqual(evals);
  });

  it('is drawn as one that came to its end', async () => {
    const written = await writeReport({runs: [pathOf('early'), pathOf('plain')], out: pathOf('report')});
    expect(JSON.stringify(written)).not.toContain('has not run to its end');
  });

  it.each([
    ['train.patience', {patience: 1}],
    ['train.checkpoint.best', {checkpoint: {best: true}}],
  ] as const)('cannot be asked for where no text is held out: %s', async (key, options) => {
    const run = wasm({out: 'textless', train: {...WAVERING, ...options}, data: {validation: {share: 0}}});
    const refused = train(run);
    await expect(refused).rejects.toBeInstanceOf(ConfigError);
    await expect(refused).rejects.toThrow(`${key} goes by the validation loss, and no source holds text out`);
    expect(existsSync(pathOf('textless'))).toBe(false);
  });
});

describe('light checkpoints', () => {
  const changes: RunChanges = {train: {steps: 6, checkpoint: {every: 2, keep: 2, optimizer: false}}};
  const filesIn = async (out: string, step: number): Promise<string[]> =>
    (await readdir(pathOf(`${out}/step-00000${step}`))).sort();

  it('hold the weights alone; the last one is whole', async () => {
    await train(wasm({...changes, out: 'light'}));
    expect(await stepsIn('light')).toEqual([4, 6]);
    expect(await filesIn('light', 4)).toEqual(['model', 'trainer.json']);
    expect(await filesIn('light', 6)).toEqual(['model', 'optimizer', 'trainer.json']);
    (await loadModel(pathOf('light/step-000004/model'))).dispose();
  });

  it('are nothing to go on from, and are not thrown away for that', async () => {
    await expect(train(wasm({...changes, out: 'dead'}), crashAfter(5))).rejects.toThrow('crash');
    const refused = train(wasm({...changes, out: 'dead', mode: 'resume'}));
    await expect(refused).rejects.toBeInstanceOf(UsageError);
    await expect(refused).rejects.toThrow('dead has only light checkpoints');
    await expect(refused).rejects.toMatchObject({hint: expect.stringContaining('step-000004') as string});
    expect(await stepsIn('dead')).toEqual([2, 4]);
  });

  it('do not end a run that is stopped, nor stand in its way when it goes on and is killed', async () => {
    const few = {...changes, train: {...changes.train, checkpoint: {every: 2, keep: 1, optimizer: false}}};
    const stopAtLight = (event: TrainEvent): void => {
      if (event.kind === 'checkpoint' && event.step === 2) process.emit('SIGINT', 'SIGINT');
    };
    expect(await train(wasm({...few, out: 'stopped'}), stopAtLight)).toMatchObject({
      step: 3,
      reason: 'interrupted',
    });
    expect(await filesIn('stopped', 3)).toContain('optimizer');
    await expect(train(wasm({...few, out: 'stopped', mode: 'resume'}), crashAfter(5))).rejects.toThrow('crash');
    expect(await stepsIn('stopped')).toEqual([3, 4]);
    expect(await filesIn('stopped', 4)).not.toContain('optimizer');
    await train(wasm({...few, out: 'stopped', mode: 'resume'}));
    expect(await exactLines(pathOf('stopped'))).toEqual(await exactLines(pathOf('light')));
    expect(await stepsIn('stopped')).toEqual([6]);
  });
});
