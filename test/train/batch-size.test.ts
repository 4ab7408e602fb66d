import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {createLoader} from '../../src/data/loader.js';
import {closeShards, ensureShards} from '../../src/data/shards.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {accumulates, batchSchema, passesOf} from '../../src/train/batch-size.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import {trainSchema} from '../../src/train/options.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {
  columnsOf,
  crashAfter,
  DENSE,
  exactLines,
  type RunChanges,
  SEQUENCE,
  stepsOf,
  tinyRun,
  writeModel,
} from './support.js';

const GROWTH = [
  {until: 2, accumulate: 1},
  {until: 4, accumulate: 2},
];
const growing = {steps: 6, batch: {sequences: 2, accumulate: 4, growth: GROWTH}, checkpoint: {every: 3}};
let folder = '';
const pathOf = (name: string): string => join(folder, name);
const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-batch-'));
  await writeModel(pathOf('model'), DENSE);
  await train(wasm({out: 'growing', train: growing}));
});
afterAll(() => rm(folder, {recursive: true}));

describe('the passes of a step', () => {
  it('are those of the stage it is in, and of no stage after the last', () => {
    const batch = batchSchema.parse(growing.batch);
    expect([1, 2, 3, 4, 5, 6].map((t) => passesOf(batch, t))).toEqual([1, 1, 2, 2, 4, 4]);
    expect(passesOf(batchSchema.parse({accumulate: 3}), 1)).toBe(3);
  });

  it('are summed where any step has several', () => {
    expect(accumulates(batchSchema.parse({}))).toBe(false);
    expect(accumulates(batchSchema.parse({accumulate: 2}))).toBe(true);
    expect(accumulates(batchSchema.parse({growth: [{until: 3, accumulate: 2}]}))).toBe(true);
  });

  it.each([
    [[...GROWTH].reverse(), 'each `until` must be above the one before it'],
    [[{until: 6, accumulate: 1}], 'the last batch.growth.until must be less than steps'],
  ])('cannot be those of %j', (growth, message) => {
    const parsed = trainSchema.safeParse({...growing, batch: {...growing.batch, growth}});
    expect(parsed.error?.issues.map((issue) => issue.message).join()).toContain(message);
  });
});

describe('a run whose batch grows', () => {
  it('learns from more tokens in later steps, and from the same rows in the same order', async () => {
    const steps = await stepsOf(pathOf('growing'));
    const one = 2 * SEQUENCE;
    expect(steps.map(({tokens}) => tokens)).toEqual([1, 2, 4, 6, 10, 14].map((passes) => passes * one));
    const {data, shards, seed} = wasm({});
    const sources = await ensureShards(data, await loadTokenizer(pathOf('model')), shards);
    const loader = createLoader({
      ...{shards: sources.map(({name, weight, train: shard}) => ({name, weight, shard})), sequences: 2, seed},
    });
    for (let n = 0; n < 14; n++) await loader.next();
    await closeShards(sources);
    expect((await latestCheckpoint(pathOf('growing')))?.trainer.loader).toEqual(loader.state());
  });

  it('has the steps of a small batch as long as it is small', async () => {
    await train(wasm({out: 'small', train: {steps: 2, batch: {sequences: 2}}}));
    const [small, first] = [await stepsOf(pathOf('small')), (await stepsOf(pathOf('growing'))).slice(0, 2)];
    expect(first.map(columnsOf)).toBeAllClose(small.map(columnsOf), {rtol: 2e-5, atol: 0});
  });

  it('has the same bytes when it was killed between two sizes', async () => {
    await expect(train(wasm({out: 'killed', train: growing}), crashAfter(5))).rejects.toThrow('crash');
    await train(wasm({out: 'killed', train: growing, mode: 'resume'}));
    expect(await exactLines(pathOf('killed'))).toEqual(await exactLines(pathOf('growing')));
  });
});
