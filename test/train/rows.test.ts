import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {createTokenShardWriter} from '../../src/format/token-shard-writer.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import type {TrainEvent} from '../../src/train/event.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {DataError} from '../../src/util/errors.js';
import {createPermutation} from '../../src/util/permutation.js';
import {DENSE, exactLines, type RunChanges, SEQUENCE, stepsOf, TOKENIZER, tinyRun, writeModel} from './support.js';

let folder = '';
const ROWS = {whole: 16, damaged: 600};
/** Row of the second shard that holds an id of no vocabulary: the 8th to be read, or near it, and none that a fingerprint reads. */
const BAD = (() => {
  const order = createPermutation(ROWS.damaged, 7, 'data order of scripture, epoch 0');
  const seen = new Set(Array.from({length: 256}, (_, i) => Math.floor((i * (ROWS.damaged - 1)) / 255)));
  return Array.from({length: 20}, (_, i) => order(8 + i)).find((row) => !seen.has(row))!;
})();

/** A run of 2 passes of one row a step over `shard`. */
function runOf(out: string, shard: string, changes: RunChanges & {damaged?: 'stop' | 'skip'} = {}): TrainRun {
  const {damaged = 'stop', train: options, ...others} = changes;
  const {sources} = tinyRun(folder).data;
  return tinyRun(folder, {
    ...{out, engine: {device: 'wasm'}, hash: damaged, ...others},
    data: {sources: [{...sources[0]!, path: join(folder, shard)}], validation: {share: 0}, damaged},
    train: {steps: 8, batch: {sequences: 1, accumulate: 2}, ...options},
  });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-rows-'));
  await writeModel(join(folder, 'model'), DENSE);
  const {fingerprint} = await loadTokenizer(TOKENIZER);
  for (const [name, rows] of Object.entries(ROWS)) {
    const about = {tokenizerSha256: fingerprint, sequenceLength: SEQUENCE, source: 's', licence: 'none'};
    const writer = await createTokenShardWriter(join(folder, `${name}.arrow`), about);
    for (let row = 0; row < rows; row++) {
      const id = name === 'damaged' && row === BAD ? 9999 : row % 200;
      await writer.append({tokens: Int32Array.from({length: SEQUENCE + 1}, (_, i) => (i === 3 ? id : i))});
    }
    await writer.finish(rows);
  }
});
afterAll(() => rm(folder, {recursive: true}));

const notesOf = async (run: TrainRun): Promise<string[]> => {
  const notes: string[] = [];
  await train(run, (event: TrainEvent) => {
    if (event.kind === 'note') notes.push(event.text);
  });
  return notes;
};

describe('a row that cannot be read', () => {
  it('costs no step before it, and leaving it out goes on from there', async () => {
    const error: unknown = await train(runOf('bad', 'damaged.arrow')).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({
      message: `${join(folder, 'damaged.arrow')}: row ${BAD} holds token id 9999, the vocabulary has 274.`,
      hint: expect.stringMatching(/set data\.damaged to skip, and resume with --allow-change/) as string,
    });
    const done = (await stepsOf(join(folder, 'bad'))).length;
    expect(done).toBeGreaterThan(0);
    expect((await latestCheckpoint(join(folder, 'bad')))?.trainer.step).toBe(done);
    const skips: RunChanges & {damaged: 'skip'} = {damaged: 'skip', mode: 'resume', allowsChange: true};
    expect(await train(runOf('bad', 'damaged.arrow', skips))).toMatchObject({step: 8, reason: 'completed'});
    await train(runOf('skipped', 'damaged.arrow', {damaged: 'skip'}));
    expect(await exactLines(join(folder, 'bad'))).toEqual(await exactLines(join(folder, 'skipped')));
  });
});

describe('text that is shorter than what is asked for', () => {
  it('is said of before the run begins, and whenever it begins again', async () => {
    const steps = {steps: 5, batch: {sequences: 8, growth: [{until: 1, accumulate: 2}]}};
    expect(await notesOf(runOf('short', 'whole.arrow', {train: steps}))).toEqual([
      'scripture has 16 rows, and about 48 are trained on: they repeat',
      'step 2: scripture begins again, epoch 2: all its 16 rows were read',
      'step 4: scripture begins again, epoch 3: all its 16 rows were read',
    ]);
  });

  it('is not said of where it is just enough', async () => {
    expect(await notesOf(runOf('enough', 'whole.arrow'))).toEqual([]);
  });
});
