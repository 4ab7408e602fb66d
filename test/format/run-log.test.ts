import {appendFile, readFile, writeFile} from 'node:fs/promises';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {openRunLog, readRunLog, truncateAfterStep} from '../../src/format/run-log.js';
import type {RunLogRecord, RunRecord, StepRecord} from '../../src/format/run-record.js';
import {DataError} from '../../src/util/errors.js';
import {useScratch} from './scratch.js';

const scratch = useScratch();
const log = (): string => scratch('log.jsonl');

const RUN: RunRecord = {
  kind: 'run',
  schema: 1,
  name: 'quickstart',
  arm: 'downcycle',
  configHash: 'c0ffee',
  seed: 7,
  versions: {downcycle: '0.1.0'},
  device: 'cpu',
  parameters: {total: 30, active: 10, trainable: 30},
  startedAt: '2026-01-01T00:00:00Z',
};

const stepOf = (step: number, more: Partial<StepRecord> = {}): StepRecord => ({
  kind: 'step',
  step,
  tokens: step * 2048,
  flops: step * 1e12,
  loss: 8 - Math.fround(step / 7),
  auxLoss: 1.01,
  zLoss: 0.2,
  gradNorm: 1 / 3,
  lr: {default: 4e-4},
  load: [[0.5, 0.5]],
  overflow: 0,
  seconds: step * 0.7,
  tokensPerSecond: 3000,
  utilisation: null,
  ...more,
});

const evalOf = (step: number): RunLogRecord => ({
  kind: 'eval',
  step,
  tokens: step * 2048,
  split: 'validation',
  loss: 7,
  perplexity: Math.exp(7),
});
const checkpointOf = (step: number): RunLogRecord => ({kind: 'checkpoint', step, path: `step-00000${step}`});
const resumeOf = (step: number): RunLogRecord => ({
  kind: 'resume',
  step,
  tokens: step * 2048,
  versions: {},
  device: 'cpu',
  resumedAt: '2026-01-01T01:00:00Z',
});
const endOf = (step: number): RunLogRecord => ({
  kind: 'end',
  step,
  tokens: step * 2048,
  seconds: 9,
  reason: 'completed',
});

async function write(records: readonly RunLogRecord[], path = log()): Promise<void> {
  const file = await openRunLog(path);
  for (const record of records) await file.append(record);
  await file.close();
}

describe('a run log', () => {
  it('gives back the records of every kind as they were appended', async () => {
    const records = [RUN, stepOf(1), evalOf(1), checkpointOf(1), resumeOf(1), endOf(2)];
    await write(records);
    expect(await readRunLog(log())).toEqual(records);
  });

  it('is one JSON object a line', async () => {
    await write([RUN, stepOf(1), endOf(1)]);
    const text = await readFile(log(), 'utf8');
    expect(text.endsWith('\n')).toBe(true);
    expect(
      text
        .trimEnd()
        .split('\n')
        .map((line) => (JSON.parse(line) as {kind: string}).kind),
    ).toEqual(['run', 'step', 'end']);
  });

  it('keeps every finite number to the last bit', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.double({noNaN: true, noDefaultInfinity: true})), async (losses) => {
        const path = scratch(`log-${Math.random()}`);
        await write(
          losses.map((loss, i) => stepOf(i, {loss})),
          path,
        );
        const back = await readRunLog(path);
        expect(back.map((record) => record.kind === 'step' && record.loss)).toEqual(losses.map((loss) => loss + 0));
      }),
      {numRuns: 30},
    );
  });

  it('has lines that agree byte for byte up to the fields of the wall clock, however the record was built', async () => {
    const {loss, seconds, ...rest} = stepOf(3);
    await write([stepOf(3), {seconds: seconds * 2, ...rest, tokensPerSecond: 1, utilisation: 0.4, loss}]);
    const [one, two] = (await readFile(log(), 'utf8')).split('\n').map((line) => line.split('"seconds"')[0]);
    expect(one).toBe(two);
    expect(one).toContain('"loss":');
  });

  it('holds null for what is not finite', async () => {
    await write([stepOf(1, {loss: Number.NaN, tokensPerSecond: Infinity})]);
    expect(await readRunLog(log())).toEqual([stepOf(1, {loss: null, tokensPerSecond: null})]);
  });

  it('keeps the order of calls that were not awaited', async () => {
    const file = await openRunLog(log());
    const steps = Array.from({length: 200}, (_, i) => (i % 10 === 9 ? checkpointOf(i) : stepOf(i)));
    await Promise.all(steps.map((record) => file.append(record)));
    await file.sync();
    await file.close();
    expect(await readRunLog(log())).toEqual(steps);
  });

  it('goes on where it ended when it is opened again', async () => {
    await write([RUN, stepOf(1)]);
    await write([stepOf(2)]);
    expect(await readRunLog(log())).toEqual([RUN, stepOf(1), stepOf(2)]);
  });

  it('takes no record that its reader would refuse', async () => {
    const file = await openRunLog(log());
    await expect(file.append(stepOf(1.5))).rejects.toThrow(/a step record cannot be logged: step: /);
    await expect(file.append(stepOf(1, {flops: Number.NaN}))).rejects.toThrow(TypeError);
    await file.close();
    expect(await readRunLog(log())).toEqual([]);
  });
});

describe('a log torn by a kill', () => {
  it('loses only the torn line, wherever the tear is', async () => {
    await write([RUN, stepOf(1), stepOf(2)]);
    const whole = await readFile(log());
    const lastLine = whole.lastIndexOf('\n', whole.length - 2) + 1;
    for (let length = lastLine; length < whole.length - 1; length += 7) {
      await writeFile(log(), whole.subarray(0, length));
      expect(await readRunLog(log())).toEqual([RUN, stepOf(1)]);
      await write([stepOf(2)]);
      expect(await readFile(log())).toEqual(whole);
    }
  });

  it('loses nothing if only the newline is missing', async () => {
    await write([RUN, stepOf(1)]);
    const whole = await readFile(log());
    await writeFile(log(), whole.subarray(0, -1));
    expect(await readRunLog(log())).toEqual([RUN, stepOf(1)]);
    await write([]);
    expect(await readFile(log())).toEqual(whole);
  });

  it('is empty if nothing but the first line was begun', async () => {
    await writeFile(log(), '{"kind":"ru');
    await write([RUN]);
    expect(await readRunLog(log())).toEqual([RUN]);
  });
});

describe('truncateAfterStep', () => {
  it('drops what came after the step and every end, and keeps the bytes of the rest', async () => {
    const kept = [RUN, stepOf(1), stepOf(2), checkpointOf(2), evalOf(2)];
    await write(kept);
    const before = await readFile(log());
    await write([stepOf(3), endOf(2), evalOf(3), checkpointOf(3)]);
    expect(await truncateAfterStep(log(), 2)).toBe(4);
    expect(await readFile(log())).toEqual(before);
  });

  it('keeps a record of the step that was logged after a later one', async () => {
    await write([RUN, stepOf(1), stepOf(2), checkpointOf(1), stepOf(3)]);
    await truncateAfterStep(log(), 1);
    expect(await readRunLog(log())).toEqual([RUN, stepOf(1), checkpointOf(1)]);
  });

  it('drops a torn line and closes a line that lacks its newline', async () => {
    await write([RUN, stepOf(1)]);
    const whole = await readFile(log());
    await appendFile(log(), '{"kind":"step","st');
    await truncateAfterStep(log(), 1);
    expect(await readFile(log())).toEqual(whole);
    await writeFile(log(), whole.subarray(0, -1));
    await truncateAfterStep(log(), 1);
    expect(await readFile(log())).toEqual(whole);
  });

  it('makes a resumed run end with the same log as one that was never stopped', async () => {
    const steps = [1, 2, 3, 4].map((step) => stepOf(step));
    await write([RUN, ...steps], scratch('straight'));
    await write([RUN, ...steps.slice(0, 3)]);
    await truncateAfterStep(log(), 2);
    await write([resumeOf(2), ...steps.slice(2)]);
    const lines = (await readFile(log(), 'utf8')).split('\n').filter((line) => !line.includes('"resume"'));
    expect(lines.join('\n')).toBe(await readFile(scratch('straight'), 'utf8'));
  });

  it('leaves a damaged log as it was', async () => {
    await writeFile(log(), 'nothing\n');
    await expect(truncateAfterStep(log(), 1)).rejects.toBeInstanceOf(DataError);
    expect(await readFile(log(), 'utf8')).toBe('nothing\n');
  });
});

describe('readRunLog refuses', () => {
  const message = async (text: string): Promise<string> => {
    await writeFile(log(), text);
    const error: unknown = await readRunLog(log()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DataError);
    return (error as Error).message;
  };
  const line = (record: object): string => `${JSON.stringify(record)}\n`;

  it('a log that is not there', async () => {
    await expect(readRunLog(log())).rejects.toThrow(`${log()}: there is no such log.`);
  });

  it('damage before the end, by its line', async () => {
    expect(await message(`${line(RUN)}{"kind"\n${line(stepOf(1))}`)).toBe(`${log()}:2: this line is not JSON.`);
  });

  it('a last line that is whole and wrong', async () => {
    expect(await message(`${line(RUN)}{"kind"\n`)).toBe(`${log()}:2: this line is not JSON.`);
  });

  it('an empty line', async () => {
    expect(await message(`${line(RUN)}\n`)).toBe(`${log()}:2: this line is not JSON.`);
  });

  it('a record of an unknown kind', async () => {
    expect(await message(`${line(RUN)}${line({kind: 'song'})}`)).toMatch(/:2: this is no record of a run: kind: /);
  });

  it('a record with a field of the wrong type', async () => {
    expect(await message(line({...stepOf(1), loss: 'low'}))).toMatch(/:1: this is no record of a run: loss: .*number/);
  });

  it('a log of another schema', async () => {
    expect(await message(line({...RUN, schema: 2}))).toBe(
      `${log()}:1: this is no record of a run: schema: this log has schema 2, this downcycle reads 1.`,
    );
  });
});
