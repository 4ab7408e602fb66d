import {execFileSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {prepare} from '../../src/data/prepare.js';
import {readRunLog} from '../../src/format/run-log.js';
import {createTokenShardWriter} from '../../src/format/token-shard-writer.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import type {TrainEvent} from '../../src/train/event.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {ConfigError, DataError, EnvironmentError, ModelError, UsageError} from '../../src/util/errors.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  experts,
  ROUTED,
  type RunChanges,
  stepsOf,
  TEXT,
  TOKENIZER,
  tiny,
  tinyRun,
  writeModel,
} from './support.js';

const STORIES = 'test/fixtures/tokenizer/stories260k';
let folder = '';

const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});
const pathOf = (name: string): string => join(folder, name);
/** The error of a run that must fail. */
const failure = (run: TrainRun): Promise<unknown> =>
  train(run).then(
    () => 'no error',
    (error: unknown) => error,
  );

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-train-'));
  await writeModel(pathOf('model'), DENSE);
  await train(wasm({out: 'done', train: {steps: 2, checkpoint: {every: 1}}}));
});
afterAll(() => rm(folder, {recursive: true}));

describe('the run folder', () => {
  it('that exists is refused and left alone when nothing else was said', async () => {
    const log = await readFile(pathOf('done/log.jsonl'), 'utf8');
    const error = await failure(wasm({out: 'done'}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: `${pathOf('done')} already exists; downcycle never overwrites.`});
    expect(await readFile(pathOf('done/log.jsonl'), 'utf8')).toBe(log);
  });

  it('of another config is not resumed', async () => {
    const log = await readFile(pathOf('done/log.jsonl'), 'utf8');
    const error = await failure(wasm({out: 'done', mode: 'resume', hash: 'another'}));
    expect(error).toBeInstanceOf(UsageError);
    expect(error).toMatchObject({
      message: expect.stringContaining(`${pathOf('done')} holds a run of another config`) as string,
    });
    expect(await readFile(pathOf('done/log.jsonl'), 'utf8')).toBe(log);
  });

  it('of another config is not resumed from its checkpoint either, where the log says nothing', async () => {
    await train(wasm({out: 'headless', train: {steps: 1}}));
    await writeFile(pathOf('headless/log.jsonl'), '');
    expect(await failure(wasm({out: 'headless', mode: 'resume', hash: 'another'}))).toBeInstanceOf(UsageError);
  });

  it.each(['resume', 'overwrite'] as const)('that is no run, here a model, is never emptied by %s', async (mode) => {
    const names = await readdir(pathOf('model'));
    const error = await failure(wasm({out: 'model', mode}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: `${pathOf('model')} exists and is no run folder: it has no config.yaml.`});
    expect(await readdir(pathOf('model'))).toEqual(names);
  });

  it.each(['resume', 'overwrite'] as const)('is not emptied by %s of what no run makes', async (mode) => {
    const run = wasm({out: `mixed-${mode}`, mode, train: {steps: 1}});
    await mkdir(join(run.out, 'thesis'), {recursive: true});
    await writeFile(join(run.out, 'thesis/chapter1.txt'), 'in the beginning');
    await writeFile(join(run.out, 'config.yaml'), 'name: of-a-person\n');
    expect(await failure(run), 'a config of something else').toMatchObject({
      message: `${run.out} exists and is no run folder: its config.yaml has no log beside it.`,
    });
    await writeFile(join(run.out, 'config.yaml'), run.config.yaml);
    await writeFile(join(run.out, 'log.jsonl'), '');
    const names = (await readdir(run.out, {recursive: true})).sort();
    const error = await failure(run);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: `${run.out} would be emptied, and holds what no run makes: thesis.`});
    expect((await readdir(run.out, {recursive: true})).sort()).toEqual(names);
    await rm(join(run.out, 'thesis'), {recursive: true});
    const notes: string[] = [];
    await train(run, (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    const again = `no whole checkpoint in ${run.out}: the run begins again`;
    expect(notes.filter((text) => text === again)).toHaveLength(mode === 'resume' ? 1 : 0);
  });

  it('that an overwrite was killed in is overwritten by the next, of whatever config', async () => {
    const run = wasm({out: 'half', train: {steps: 1}});
    await train(run);
    await rm(join(run.out, 'log.jsonl'));
    await rm(join(run.out, 'step-000001/trainer.json'));
    const other = {...run, mode: 'overwrite', config: {yaml: 'name: other\n', hash: 'other'}} as const;
    expect(await train(other)).toMatchObject({step: 1, reason: 'completed'});
    expect(await readFile(join(run.out, 'config.yaml'), 'utf8')).toBe('name: other\n');
  });

  it('with checkpoints and no log is not resumed', async () => {
    const run = wasm({out: 'logless-run', train: {steps: 1}});
    await train(run);
    for (const lose of [() => writeFile(join(run.out, 'log.jsonl'), ''), () => rm(join(run.out, 'log.jsonl'))]) {
      await lose();
      const error = await failure({...run, mode: 'resume', allowsChange: true});
      expect(error).toBeInstanceOf(ModelError);
      expect(error).toMatchObject({
        message: `${run.out} has checkpoints, and no log.jsonl that says how they came about.`,
        hint: expect.stringContaining('--overwrite') as string,
      });
    }
  });

  it('that has a checkpoint is resumed beside what no run makes, which stays', async () => {
    const run = wasm({out: 'noted', train: {steps: 2, checkpoint: {every: 1}}});
    await expect(train(run, crashAfter(2))).rejects.toThrow('crash');
    await writeFile(join(run.out, 'notes.txt'), 'mine');
    await train({...run, mode: 'resume'});
    expect(await readFile(join(run.out, 'notes.txt'), 'utf8')).toBe('mine');
  });

  it('with nothing but damaged checkpoints is not begun again by resume', async () => {
    const run = wasm({out: 'unmarked', train: {steps: 1}});
    await train(run);
    await rm(join(run.out, 'step-000001/trainer.json'));
    const log = await readFile(join(run.out, 'log.jsonl'), 'utf8');
    await writeFile(join(run.out, 'log.jsonl'), log.replace(/\{"kind":"end".*\n/, ''));
    const error = await failure({...run, mode: 'resume'});
    expect(error).toBeInstanceOf(ModelError);
    expect(error).toMatchObject({
      message: `${run.out} has no whole checkpoint: there is no trainer.json in step-000001.`,
      hint: expect.stringContaining('--overwrite') as string,
    });
    expect(await readdir(join(run.out, 'step-000001'))).toContain('model');
  });

  it('with nothing in it but remains of a killed run is begun', async () => {
    await mkdir(pathOf('remains'));
    await writeFile(pathOf('remains/config.yaml.part-123'), 'half');
    await train(wasm({out: 'remains', mode: 'resume', train: {steps: 1}}));
    expect((await readdir(pathOf('remains'))).sort()).toEqual(['config.yaml', 'log.jsonl', 'step-000001']);
  });

  it('with a damaged trainer state names file and place', async () => {
    await train(wasm({out: 'damaged', train: {steps: 1, checkpoint: {every: 1}}}));
    const log = (await readFile(pathOf('damaged/log.jsonl'), 'utf8')).split('\n');
    await writeFile(pathOf('damaged/log.jsonl'), `${log.slice(0, 3).join('\n')}\n`);
    for (const [text, message] of [
      ['{"format": 1,\n', /trainer\.json:\d+:\d+: /],
      ['{"format": 2}', /can read: format: the checkpoint has 2, this downcycle reads 1\.$/],
      ['{"format": 1, "later": true}', /not a trainer state this version can read: /],
    ] as const) {
      await writeFile(pathOf('damaged/step-000001/trainer.json'), text);
      const error = await failure(wasm({out: 'damaged', mode: 'resume', train: {steps: 1, checkpoint: {every: 1}}}));
      expect(error).toBeInstanceOf(ModelError);
      expect((error as Error).message).toMatch(message);
    }
  });

  it.each([
    ['trainer.json', ''],
    ['model/model.safetensors', 'x'],
    ['optimizer/model.safetensors', 'x'],
    ['model/config.json', null], // for which reading a model has a hint of its own
  ])('whose newest checkpoint has a damaged %s says that there is one before it', async (file, content) => {
    const run = wasm({out: `newest-${file.replaceAll('/', '-')}`, train: {steps: 4, checkpoint: {every: 1}}});
    await expect(train(run, crashAfter(3))).rejects.toThrow('crash');
    const newest = join(
      run.out,
      (await readdir(run.out))
        .filter((name) => name.startsWith('step-'))
        .sort()
        .at(-1)!,
    );
    if (content === null) await rm(join(newest, file));
    else await writeFile(join(newest, file), content);
    expect(await failure({...run, mode: 'resume'})).toMatchObject({
      message: expect.stringContaining(join(newest, file)) as string,
      hint: `Move ${newest} elsewhere to go on from the checkpoint before it, or say --overwrite to start again.`,
    });
    await rm(newest, {recursive: true});
    expect(await train({...run, mode: 'resume'})).toMatchObject({step: 4, reason: 'completed'});
  });
});

describe('a log', () => {
  const changes: RunChanges = {train: {steps: 3, checkpoint: {every: 1}}};
  const crash = crashAfter(2);

  it('that is a folder is refused by name, and the checkpoints stay', async () => {
    await failure(wasm({...changes, out: 'logless'}));
    await rm(pathOf('logless/log.jsonl'));
    await mkdir(pathOf('logless/log.jsonl'));
    const error = await failure(wasm({...changes, out: 'logless', mode: 'resume'}));
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: `${pathOf('logless/log.jsonl')} is a folder; a file was to be there.`});
    expect((await latestCheckpoint(pathOf('logless')))?.trainer.step).toBe(3);
  });

  it('that may not be written is refused by name, and stays as it was', async () => {
    await expect(train(wasm({...changes, out: 'sealed'}), crash)).rejects.toThrow('crash');
    const names = await readdir(pathOf('sealed'));
    const log = await readFile(pathOf('sealed/log.jsonl'), 'utf8');
    await chmod(folder, 0o777);
    await chmod(pathOf('sealed'), 0o555);
    const root = process.getuid?.() === 0;
    if (root) process.seteuid?.(65_534); // nothing is forbidden to root
    const error = await failure(wasm({...changes, out: 'sealed', mode: 'resume'}));
    if (root) process.seteuid?.(0);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect(error).toMatchObject({message: `${pathOf('sealed/log.jsonl')}: not allowed to write here.`});
    expect(await readdir(pathOf('sealed'))).toEqual(names);
    expect(await readFile(pathOf('sealed/log.jsonl'), 'utf8')).toBe(log);
    await chmod(pathOf('sealed'), 0o755);
    await train(wasm({...changes, out: 'sealed', mode: 'resume'}));
  });

  it('counts no seconds backwards when the clock is set back, in a run or between two', async () => {
    vi.useFakeTimers({toFake: ['Date'], now: new Date('2026-06-01')});
    const etas: (number | null)[] = [];
    const back = (event: TrainEvent): void => {
      vi.setSystemTime(Date.now() - 3_600_000);
      if (event.kind === 'step') etas.push(event.eta);
      if (event.kind === 'step' && event.step === 2 && etas.length === 2) throw new Error('crash');
    };
    try {
      await expect(train(wasm({...changes, out: 'clock'}), back)).rejects.toThrow('crash');
      await train(wasm({...changes, out: 'clock', mode: 'resume'}), back);
    } finally {
      vi.useRealTimers();
    }
    const seconds = (await stepsOf(pathOf('clock'))).map((step) => step.seconds);
    expect(seconds).toHaveLength(3);
    expect(seconds).toEqual(seconds.toSorted((a, b) => a - b));
    expect(Math.min(...seconds, ...etas.map((eta) => eta ?? 0))).toBeGreaterThanOrEqual(0);
    for (const {tokensPerSecond} of await stepsOf(pathOf('clock'))) expect(tokensPerSecond).toBeGreaterThan(0);
  });
});

describe('what a run was begun with', () => {
  const another = (_: unknown, values: Float32Array): Float32Array => values.map((value) => value + 1e-3);
  /** A run of its own model and text that stopped at step 2 of 3, or is complete. */
  async function begun(out: string, steps: number): Promise<TrainRun> {
    await writeModel(pathOf(`${out}-model`), DENSE);
    await copyFile(TEXT, pathOf(`${out}.txt`));
    const sources = [{...wasm({}).data.sources[0]!, path: pathOf(`${out}.txt`)}];
    const run = wasm({out, model: `${out}-model`, data: {sources}, train: {steps, checkpoint: {every: 2}}});
    await train(run, crashAfter(3)).catch(() => undefined);
    return {...run, mode: 'resume'};
  }

  it.each([
    ['unfinished', 3],
    ['complete', 2],
  ])('is not changed under the paths of a run that is %s', async (out, steps) => {
    const run = await begun(out, steps);
    const log = await readFile(pathOf(`${out}/log.jsonl`), 'utf8');
    await rm(run.model, {recursive: true});
    await writeModel(run.model, DENSE, another);
    const weights = await failure(run);
    expect(weights).toBeInstanceOf(UsageError);
    expect(weights).toMatchObject({
      message: `${run.out} was begun with others than there are now: the weights of ${run.model}.`,
    });
    await rm(run.model, {recursive: true});
    await writeModel(run.model, DENSE);
    const text = await readFile(pathOf(`${out}.txt`), 'utf8');
    await writeFile(pathOf(`${out}.txt`), text.replaceAll('And', 'Yet'));
    expect(await failure(run)).toMatchObject({
      message: expect.stringMatching(/others than there are now: the packed text scripture\.train/) as string,
    });
    expect(await readFile(pathOf(`${out}/log.jsonl`), 'utf8')).toBe(log);
    await writeFile(pathOf(`${out}.txt`), text);
    expect(await train(run)).toMatchObject({step: steps, reason: 'completed'});
  });

  it('need not be there any more where nothing of it is read', async () => {
    const run = await begun('orphan', 3);
    await rm(run.model, {recursive: true});
    expect(await train(run)).toMatchObject({step: 3, reason: 'completed'});
    expect(await train(run), 'and complete').toMatchObject({step: 3, reason: 'completed'});
  });

  it('is believed where the log does not say it, as those of earlier versions', async () => {
    const run = await begun('early', 3);
    const log = await readFile(pathOf('early/log.jsonl'), 'utf8');
    expect(log).toContain('"inputs":{');
    await writeFile(pathOf('early/log.jsonl'), log.replace(/"inputs":\{[^}]*\},/, ''));
    await rm(run.model, {recursive: true});
    await writeModel(run.model, DENSE, another);
    expect(await train(run)).toMatchObject({step: 3, reason: 'completed'});
  });
});

describe('training that diverges', () => {
  it('names the step, and leaves the last checkpoint and a log that says it failed', async () => {
    const changes: RunChanges = {out: 'wild', train: {steps: 9, optimizer: {lr: 1e9}, checkpoint: {every: 1}}};
    const error = await failure(wasm(changes));
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toMatch(/wild: training diverged at step 3 \(loss NaN, gradient norm NaN/);
    expect((await latestCheckpoint(pathOf('wild')))?.trainer.step).toBe(2);
    const last = (await readRunLog(pathOf('wild/log.jsonl'))).at(-1);
    expect(last).toMatchObject({kind: 'end', step: 2, reason: 'failed'});
    expect(await failure(wasm({...changes, mode: 'resume'})), 'and does so again').toMatchObject({
      message: (error as Error).message,
    });
  });

  it('of experts is not taken for a lack of room', async () => {
    const poison = ({path}: {path: string}, values: Float32Array): Float32Array =>
      path === 'layers.0.ffnNorm' ? values.fill(3e38) : values;
    await writeModel(pathOf('poisoned'), ROUTED, poison);
    const error = await failure(wasm({model: 'poisoned', out: 'poisoned-run', data: {validation: {share: 0}}}));
    expect((error as Error).message).toMatch(/diverged at step 1/);
  });

  it('is not saved, when it shows only in the weights of the last step', async () => {
    const error = await failure(wasm({out: 'infinite', train: {steps: 1, optimizer: {lr: 3e38}}}));
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toMatch(/diverged at step 1 \(.* holds numbers that are not finite\)/);
    expect((await readdir(pathOf('infinite'))).sort()).toEqual(['config.yaml', 'log.jsonl']);
  });
});

describe('text that does not fit the model', () => {
  it.each([
    ['made with another tokenizer', STORIES, 32, 'another tokenizer'],
    ['of another sequence length', TOKENIZER, 16, 'another sequence length: 16, asked for 32'],
  ])('%s is refused before the run folder is made', async (name, tokenizer, sequenceLength, message) => {
    const {data} = wasm({});
    const out = pathOf(`shards ${name}`);
    await prepare({data: {...data, sequenceLength}, tokenizer: await loadTokenizer(tokenizer), out});
    const sources = [{...data.sources[0]!, path: out}];
    const error = await failure(wasm({out: 'misfit', data: {sources}}));
    expect(error).toBeInstanceOf(DataError);
    expect((error as Error).message).toContain(message);
    expect(existsSync(pathOf('misfit'))).toBe(false);
  });

  it('because it uses ids beyond the embedding is refused before the run folder is made', async () => {
    await writeModel(pathOf('small'), {...DENSE, vocab: 200});
    const error = await failure(wasm({model: 'small', out: 'misfit'}));
    expect(error).toBeInstanceOf(ModelError);
    expect((error as Error).message).toMatch(/small: the embedding has 200 rows, the tokenizer knows 274 ids/);
    expect((error as Error).message).toMatch(/row \d+ holds token id 2\d\d, the vocabulary has 200/);
    expect(existsSync(pathOf('misfit'))).toBe(false);
  });

  it('is not missed: a tokenizer may know ids that the text does not use', async () => {
    await writeModel(pathOf('trimmed'), {...DENSE, vocab: 273});
    await train(wasm({model: 'trimmed', out: 'trimmed-run', train: {steps: 1}}));
    expect(await exactLines(pathOf('trimmed-run'), ['step'])).toHaveLength(1);
  });
});

describe('rows whose mask leaves nothing to be learnt', () => {
  /** A shard of 16 rows, of which the token at `at` is all that is learnt; null for nothing. */
  async function writeSilent(name: string, at: {readonly row: number; readonly token: number} | null): Promise<string> {
    const {fingerprint} = await loadTokenizer(TOKENIZER);
    const [path, width] = [pathOf(name), 33];
    const writer = await createTokenShardWriter(path, {
      ...{tokenizerSha256: fingerprint, sequenceLength: 32, source: 'silent', licence: 'none'},
    });
    for (let i = 0; i < 16; i++) {
      const mask = new Int32Array(width);
      if (i === at?.row) mask[at.token] = 1;
      await writer.append({tokens: new Int32Array(width).fill(5), mask});
    }
    await writer.finish(16);
    return path;
  }
  const sourceAt = (path: string) => ({data: {sources: [{...wasm({}).data.sources[0]!, path}]}});

  it('are said of, and their loss is 0 and no NaN', async () => {
    const path = await writeSilent('silent.arrow', {row: 9, token: 1});
    const notes: string[] = [];
    const oneByOne = {steps: 16, batch: {...wasm({}).train.batch, sequences: 1}};
    await train(wasm({out: 'silent', ...sourceAt(path), train: oneByOne}), (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    const losses = (await stepsOf(pathOf('silent'))).map(({loss}) => loss);
    expect(losses.filter((loss) => Number(loss) > 0)).toHaveLength(1);
    expect(losses.filter((loss) => loss === 0)).toHaveLength(15);
    expect(notes.filter((text) => text.includes('no token of its rows is to be learnt'))).toHaveLength(15);
  });

  it.each([
    ['nowhere', null],
    ['of nothing but a token that no other stands before', {row: 3, token: 0}],
  ])('and are all there is, learnt %s, are refused before the run folder is made', async (_, at) => {
    const path = await writeSilent('mute.arrow', at);
    const error = await failure(wasm({out: 'mute', ...sourceAt(path)}));
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({
      message: `${path}: nothing is learnt of source ${wasm({}).data.sources[0]!.name}: of its 16 rows no mask marks a token that another stands before.`,
      hint: expect.stringContaining('write 1 in the column `mask`') as string,
    });
    expect(existsSync(pathOf('mute'))).toBe(false);
    await rm(path);
  });
});

describe('a pooled balance loss', () => {
  it('of layers with unequal numbers of experts is refused before anything starts', async () => {
    await writeModel(pathOf('uneven'), tiny([experts(8, 2), experts(4, 2)]));
    const error = await failure(wasm({model: 'uneven', out: 'misfit', train: {balance: {kind: 'pooled'}}}));
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({
      message:
        'train.balance.kind: pooled takes all layers together, which must have equally many experts; layer 0 has 8, layer 1 has 4.',
      hint: 'Set train.balance.kind to aux, which balances each layer by itself.',
    });
    expect(existsSync(pathOf('misfit'))).toBe(false);
  });
});

describe('rows longer than the positions of the model', () => {
  it('are refused before the run folder is made', async () => {
    const error = await failure(wasm({out: 'misfit', data: {sequenceLength: 65}}));
    expect(error).toBeInstanceOf(DataError);
    expect(error).toMatchObject({
      message: `Rows of 65 tokens are asked for, ${pathOf('model')} has 64 positions (max_position_embeddings).`,
      hint: 'Lower data.sequenceLength to 64 or less.',
    });
    expect(existsSync(pathOf('misfit'))).toBe(false);
  });
});

describe('a shard that changes during a run', () => {
  /** A run of one shard, to which something happens after its second step. */
  async function runUntil(name: string, happen: (shard: string) => Promise<void>, damaged: 'stop' | 'skip' = 'stop') {
    const {data} = wasm({});
    const out = pathOf(`shards ${name}`);
    await prepare({data, tokenizer: await loadTokenizer(TOKENIZER), out});
    const shard = join(out, 'scripture.train.arrow');
    const sources = [{...data.sources[0]!, path: shard}];
    const happening: Promise<void>[] = [];
    const run = wasm({out: name, data: {sources, damaged}, train: {steps: 12, checkpoint: {every: 1}}});
    const notes: string[] = [];
    const error = await train(run, (event) => {
      if (event.kind === 'note') notes.push(event.text);
      if (event.kind === 'step' && event.step === 2) happening.push(happen(shard));
    }).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    await Promise.all(happening);
    return {error, shard, run, notes};
  }

  it('by being cut ends the run with file and row, and leaves the last checkpoint', async () => {
    const {error, shard} = await runUntil('cut', async (path) => truncate(path, 20_000));
    expect(error).toBeInstanceOf(DataError);
    expect((error as Error).message).toMatch(/row \d+ lies beyond its end; it was cut after it was opened\.$/);
    expect((error as Error).message).toContain(shard);
    const step = (await latestCheckpoint(pathOf('cut')))?.trainer.step ?? 0;
    expect(step).toBeGreaterThanOrEqual(2);
    expect((await readRunLog(pathOf('cut/log.jsonl'))).at(-1)).toMatchObject({kind: 'end', step, reason: 'failed'});
  });

  it('by being cut is read on without the rows that are gone, if the policy says so; each is named and counted', async () => {
    const {error, shard, notes} = await runUntil('torn', async (path) => truncate(path, 20_000), 'skip');
    expect(error).toBeNull();
    const steps = await stepsOf(pathOf('torn'));
    expect(steps).toHaveLength(12);
    const counted = steps.reduce((sum, {damaged = 0}) => sum + damaged, 0);
    const told = notes.filter((text) => /^step \d+ skipped a row: .*row \d+ lies beyond its end/.test(text));
    expect(counted).toBeGreaterThan(0);
    expect(told).toHaveLength(counted);
    expect(told[0]).toContain(shard);
  });

  it('by an id that no tokenizer has does not hinder a run from its start, or one that goes on, if the policy says so', async () => {
    const {run, shard} = await runUntil('spoilt', async () => undefined, 'skip');
    const bytes = await readFile(shard);
    for (let at = 4096; at < bytes.length / 4; at += 4) bytes.writeInt32LE(99_999, at);
    await writeFile(shard, bytes);
    const notes: string[] = [];
    const result = await train({...run, out: pathOf('anew'), mode: 'new'}, (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(result.reason).toBe('completed');
    expect(notes.join('\n')).toMatch(/skipped a row: .*holds token id 99999/);
    await rm(pathOf('spoilt/step-000012'), {recursive: true});
    const log = await readFile(pathOf('spoilt/log.jsonl'), 'utf8');
    await writeFile(pathOf('spoilt/log.jsonl'), log.replace(/\{"kind":"end".*\n/, ''));
    expect((await train({...run, mode: 'resume'})).reason).toBe('completed');
  });

  it('by being removed is read to the end, and missed when the run is resumed', async () => {
    const {error, shard, run} = await runUntil('removed', async (path) => rm(path));
    expect(error).toBeNull();
    expect(await exactLines(pathOf('removed'), ['step'])).toHaveLength(12);
    await rm(pathOf('removed/step-000012'), {recursive: true});
    const log = await readFile(pathOf('removed/log.jsonl'), 'utf8');
    await writeFile(pathOf('removed/log.jsonl'), log.replace(/\{"kind":"end".*\n/, ''));
    expect(await failure({...run, mode: 'resume'})).toMatchObject({message: `Token shard ${shard} does not exist.`});
  });
});

describe('conversations', () => {
  it('are trained on beside text, and say so where the model has no chat template', async () => {
    const talk = Array.from({length: 60}, (_, i) => ({prompt: `what is ${i % 7}`, completion: ` it is ${i % 5}`}));
    await writeFile(pathOf('talk.jsonl'), talk.map((record) => JSON.stringify(record)).join('\n'));
    const {data} = wasm({});
    const [text] = data.sources as [(typeof data.sources)[0]];
    const sources = [text, {...text, name: 'talk', path: pathOf('talk.jsonl')}];
    await train(wasm({out: 'talk', data: {sources}, train: {steps: 2}}));
    expect(await exactLines(pathOf('talk'), ['step'])).toHaveLength(2);
    const chat = {...text, name: 'chat', path: pathOf('chat.jsonl')};
    await writeFile(chat.path, JSON.stringify({messages: [{role: 'user', content: 'x'}]}));
    expect(await failure(wasm({out: 'none', data: {sources: [chat]}}))).toMatchObject({
      message: expect.stringContaining('chat.jsonl:1: a conversation needs a chat template') as string,
    });
    expect(existsSync(pathOf('none'))).toBe(false);
  });
});

const disk = join(tmpdir(), `downcycle-train-disk-${process.pid}`);

describe.skipIf(!canMount())('a disk that is full (skipped where tmpfs cannot be mounted)', () => {
  afterAll(async () => {
    execFileSync('umount', [disk]);
    await rm(disk, {recursive: true});
  });

  it('ends the run, keeps the checkpoints before, leaves no half of one; with room the run goes on', async () => {
    const changes: RunChanges = {train: {steps: 5, checkpoint: {every: 1, keep: 9}}};
    const whole = wasm({...changes, out: 'roomy'});
    await train(whole);
    mount('size=1m');
    const run = {...whole, out: join(disk, 'run')};
    const error = await failure(run);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect((error as Error).message).toMatch(/step-000003: no space left on the disk/);
    expect((await readdir(run.out)).sort()).toEqual(['config.yaml', 'log.jsonl', 'step-000001', 'step-000002']);
    mount('remount,size=8m');
    await train({...run, mode: 'resume'});
    expect(await exactLines(run.out)).toEqual(await exactLines(whole.out));
  });
});

function mount(options: string): void {
  execFileSync('mkdir', ['-p', disk]);
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', disk], {stdio: 'ignore'});
}

function canMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  try {
    mount('size=1m');
    execFileSync('umount', [disk]);
    return true;
  } catch {
    return false;
  } finally {
    execFileSync('rm', ['-rf', disk]);
  }
}
