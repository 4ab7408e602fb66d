import {cp, readdir, readFile, rm, stat, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import type {StepRecord} from '../../src/format/run-record.js';
import {train} from '../../src/train/run.js';
import type {TrainResult, TrainRun} from '../../src/train/session.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  MOE,
  type RunChanges,
  stepsOf,
  tempFolder,
  tinyRun,
  writeModel,
} from './support.js';

describe('a run with a teacher', () => {
  const changes = (from: string, weight: number): RunChanges => ({
    engine: {device: 'wasm'},
    train: {steps: 8, optimizer: {lr: 1e-2}, distill: {from, weight, temperature: 2}},
  });
  const divergences = (steps: readonly StepRecord[]): number[] => steps.map(({distillLoss}) => distillLoss!);

  it('comes nearer to it, and logs how near', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    // Fresh models foresee next to nothing: one that is sure of its words is far from them.
    await writeModel(join(folder, 'teacher'), DENSE, ({role}, values) =>
      role === 'embedding' ? values.map((value) => 20 * value) : values,
    );
    const {out} = await train(tinyRun(folder, changes(join(folder, 'teacher'), 1)));
    const found = divergences(await stepsOf(out));
    expect(found.at(-1)!).toBeLessThan(0.8 * found[0]!);
  });

  it('that is the model itself starts at no divergence', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const {out} = await train(tinyRun(folder, changes(join(folder, 'model'), 0.5)));
    expect(divergences(await stepsOf(out))[0]).toBeCloseTo(0, 6);
  });

  it('from its likeliest words learns as from all of them where those are all, and asks once', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const teacher = await writeModel(join(folder, 'teacher'), DENSE, ({role}, values) =>
      role === 'embedding' ? values.map((value) => 20 * value) : values,
    );
    const {engine, train: options} = changes(teacher, 0.5);
    const taught = (out: string, top?: number): Promise<TrainResult> => {
      const distill = {...options!.distill!, ...(top !== undefined && {top})};
      return train(tinyRun(folder, {engine: engine!, out, train: {...options, steps: 4, distill}}));
    };
    const [live, all] = [await stepsOf((await taught('live')).out), await stepsOf((await taught('all', 274)).out)];
    for (const [i, {distillLoss, loss}] of all.entries()) {
      expect(distillLoss).toBeCloseTo(live[i]!.distillLoss!, 4);
      expect(loss).toBeCloseTo(live[i]!.loss!, 4);
    }
    await taught('few', 8);
    const {shards} = tinyRun(folder, {});
    const kept = async () => {
      const names = (await readdir(shards)).filter((name) => name.includes('.teacher-'));
      return Promise.all(names.map(async (name) => [name, (await stat(join(shards, name), {bigint: true})).mtimeNs]));
    };
    const before = await kept();
    expect(before).toHaveLength(2); // of 274 words, and of 8
    await taught('few2', 8);
    expect(await exactLines(join(folder, 'few2'))).toEqual(await exactLines(join(folder, 'few')));
    expect(await kept()).toEqual(before); // an answer would have been written there
  });

  it('does not go on with another', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const teacher = await writeModel(join(folder, 'teacher'), DENSE);
    const options = {...changes(teacher, 0.5), train: {...changes(teacher, 0.5).train, checkpoint: {every: 2}}};
    await expect(train(tinyRun(folder, options), crashAfter(3))).rejects.toThrow('crash');
    await rm(teacher, {recursive: true});
    await writeModel(teacher, DENSE, (_, values) => values.map((value) => 2 * value));
    await expect(train(tinyRun(folder, {...options, mode: 'resume'}))).rejects.toThrow(/the weights of .*teacher/);
    const {reason} = await train(tinyRun(folder, {...options, mode: 'resume', allowsChange: true}));
    expect(reason).toBe('completed');
    const records = await readRunLog(join(folder, 'run', 'log.jsonl'));
    expect(records.findLast(({kind}) => kind === 'resume')).toMatchObject({changed: ['teacher']});
  });

  it('goes on with the same bytes, whether rows were asked about or not', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const teacher = await writeModel(join(folder, 'teacher'), DENSE);
    const run = (out: string, mode: TrainRun['mode'] = 'new'): TrainRun =>
      tinyRun(folder, {
        ...{engine: {device: 'wasm'}, out, mode},
        train: {
          steps: 4,
          checkpoint: {every: 2},
          batch: {sequences: 4, accumulate: 2},
          distill: {from: teacher, top: 4},
        },
      });
    await train(run('half'), (event) => {
      if (event.kind === 'step' && event.step === 2) process.emit('SIGTERM', 'SIGTERM');
    });
    await train(run('half', 'resume'));
    await train(run('whole'));
    expect(await exactLines(join(folder, 'half'))).toEqual(await exactLines(join(folder, 'whole')));
    const kept = async () => (await readdir(run('').shards)).filter((name) => name.includes('.teacher-'));
    expect(await kept()).toHaveLength(1);
    const pairs = {steps: 1, batch: {sequences: 2}, distill: {from: teacher, top: 4}};
    await train(tinyRun(folder, {engine: {device: 'wasm'}, out: 'pairs', train: pairs}));
    expect(await kept(), 'the last bits of an answer hang on the batch').toHaveLength(2);
  });

  it('refuses one of other words or of another tokenizer', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    await writeModel(join(folder, 'wide'), {...DENSE, vocab: 300});
    await expect(train(tinyRun(folder, changes(join(folder, 'wide'), 0.5)))).rejects.toThrow(
      /train\.distill\.from: .*wide has 300 words instead of 274 and cannot teach/,
    );
    await cp(join(folder, 'model'), join(folder, 'other'), {recursive: true});
    await writeFile(join(folder, 'other', 'tokenizer.json'), await tokenizerOfOther(join(folder, 'model')));
    await expect(train(tinyRun(folder, changes(join(folder, 'other'), 0.5)))).rejects.toThrow('has another tokenizer');
  });
});

/** The same tokenizer with a blank more in its file. */
async function tokenizerOfOther(model: string): Promise<string> {
  return `${await readFile(join(model, 'tokenizer.json'), 'utf8')} `;
}
