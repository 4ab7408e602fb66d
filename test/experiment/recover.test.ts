// A conversion that is recovered, as a user types it.
import {mkdir, readdir, writeFile} from 'node:fs/promises';
import {hostname} from 'node:os';
import {join, resolve} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import {type RecoverOptions, recover, recoverConfig} from '../../src/experiment/recover.js';
import {stagesOf} from '../../src/experiment/recover-stages.js';
import {readRunLog} from '../../src/format/run-log.js';
import type {Architecture} from '../../src/model/architecture.js';
import {spawnCli, tempFolder} from '../cli/support.js';
import {DENSE, MOE, TEXT, writeModel} from '../train/support.js';

vi.setConfig({testTimeout: 180_000});

const options = {model: 'models/moe', text: ['a/b c.txt', 'a'], samples: 2048, tokens: 512, mode: 'new'} as const;

const TINY = ['engine.device=wasm', 'data.validation.share=0.2', 'train.optimizer.lr=0.01'];

const configsOf = (given: RecoverOptions, architecture: Architecture) =>
  stagesOf(given.recipe ?? 'cmoe', architecture, given.samples).map((stage) => recoverConfig(given, stage));
const configOf = (given: RecoverOptions, architecture: Architecture) => configsOf(given, architecture).at(-1)!;

describe('a recovery', () => {
  it('is the run of the paper, on what the model has', () => {
    const {config} = configOf({...options, set: ['train.optimizer.lr=1e-4']}, MOE);
    expect(config).toMatchObject({name: 'recover-moe', model: 'models/moe'});
    expect(config.data.sources.map(({name}) => name)).toEqual(['b-c-1', 'a-2']);
    expect(config.train).toMatchObject({steps: 128, batch: {sequences: 16}, optimizer: {lr: 1e-4, weightDecay: 0}});
    const targets = ['attention', 'ffn', 'shared', 'experts'];
    expect(config.train.finetune).toMatchObject({kind: 'lora', rank: 8, alpha: 32, targets});
    expect(config.train.balance).toMatchObject({kind: 'bias', rate: 1e-3});
    const scaled = {...MOE, routing: {...MOE.routing, weight: 'one-plus-scaled'} as const};
    const {finetune, optimizer} = configOf(options, scaled).config.train;
    expect(finetune).toMatchObject({targets, train: ['scales']});
    expect(optimizer).toMatchObject({lr: 5.65e-5, rates: {scales: 1e-3}});
    expect(config.train.optimizer.rates).toEqual({});
    const dense = configOf(options, DENSE).config.train;
    expect(dense.finetune).toMatchObject({targets: ['attention', 'ffn']});
    expect(dense.optimizer.lr).toBe(5.65e-5);
  });

  it('by DIVE trains routers with all experts, then experts by low-rank terms', () => {
    const [first, second] = configsOf({...options, recipe: 'dive'}, MOE).map(({config}) => config.train);
    expect(first).toMatchObject({
      ...{steps: 12, routing: {kind: 'all-experts', temperature: 0.5}, balance: {kind: 'none'}},
      finetune: {kind: 'parts', train: ['routers']},
    });
    expect(second).toMatchObject({
      ...{steps: 128, routing: {kind: 'as-is'}, balance: {kind: 'none'}},
      finetune: {kind: 'lora', rank: 8, alpha: 16, targets: ['experts'], train: ['norms', 'routers']},
    });
    expect(() => configsOf({...options, recipe: 'dive'}, DENSE)).toThrow('trains routers, and the model has none');
  });

  it('of two stages goes on where it was stopped, and measures before and after both', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'moe'), MOE);
    const given: RecoverOptions = {
      ...{model: join(folder, 'moe'), text: [resolve(TEXT)], samples: 80, tokens: 32, recipe: 'dive', mode: 'new'},
      ...{name: 'two', set: [...TINY, 'train.batch.sequences=4']},
    };
    const cwd = process.cwd();
    process.chdir(folder);
    try {
      const stopped = await recover(given, (event) => {
        if (event.kind === 'train' && event.event.kind === 'step') process.emit('SIGTERM', 'SIGTERM');
      });
      expect(stopped).toMatchObject({dense: null, after: null});
      expect(stopped.result).toMatchObject({out: 'checkpoints/two/routers', step: 1, reason: 'interrupted'});
      const {result, before, after} = await recover({...given, mode: 'resume'});
      expect(result).toMatchObject({step: 20, reason: 'completed'});
      expect(after!).toBeLessThan(before!);
      const [head] = await readRunLog('checkpoints/two/model/log.jsonl');
      expect(head).toMatchObject({kind: 'run'});
      expect((await readRunLog('checkpoints/two/routers/log.jsonl')).at(-1)).toMatchObject({reason: 'completed'});
    } finally {
      process.chdir(cwd);
    }
  });

  it.each([
    ['new', 'already exists; downcycle never overwrites.', 'choose another --name.'],
    ['overwrite', 'is no run folder: it has no config.yaml.', 'Choose another name'],
  ] as const)('of two stages looks at the folders of both first: %s', async (mode, message, hint) => {
    const folder = await tempFolder();
    const model = await writeModel(join(folder, 'moe'), MOE);
    const cwd = process.cwd();
    process.chdir(folder);
    try {
      await mkdir('checkpoints/recover-moe-dive/model', {recursive: true});
      await writeFile('checkpoints/recover-moe-dive/model/mine', '');
      const given = {model, text: [resolve(cwd, TEXT)], samples: 160, tokens: 32, set: TINY, mode};
      await expect(recover({...given, recipe: 'dive'})).rejects.toMatchObject({
        message: expect.stringContaining(
          `recover-moe-dive/model ${mode === 'new' ? '' : 'exists and '}${message}`,
        ) as string,
        hint: expect.stringContaining(hint) as string,
      });
      expect(await readdir('checkpoints/recover-moe-dive')).toEqual(['model']);
    } finally {
      process.chdir(cwd);
    }
  });

  it('has a name of its own by default, whatever the folder of the model is called', () => {
    const named = (model: string, recipe: 'cmoe' | 'dive' = 'cmoe') =>
      configsOf({...options, model, recipe}, MOE).map(({config}) => config.name);
    expect(named('models/my moe')).toEqual(['recover-my-moe']);
    expect(named('models/moe', 'dive')).toEqual(['recover-moe-dive', 'recover-moe-dive']);
    const [stage] = stagesOf('cmoe', MOE, 2048);
    expect(recoverConfig(options, stage!).at(['name']), 'nobody typed it').toBe('recover');
  });

  it('says who trains in its folder, and leaves nothing where its text is too short', async () => {
    const folder = await tempFolder();
    const model = await writeModel(join(folder, 'moe'), MOE);
    const text = join(folder, 'short.txt');
    await writeFile(text, 'A line.\n');
    const cwd = process.cwd();
    process.chdir(folder);
    try {
      const given = {model, text: [text], samples: 160, tokens: 32, set: TINY, name: 'mine', mode: 'new'} as const;
      await expect(recover(given)).rejects.toThrow('nothing is left to train on');
      expect(await readdir(folder)).not.toContain('checkpoints');
      await mkdir('checkpoints/mine/model', {recursive: true});
      const holder = {pid: process.ppid, host: hostname(), since: '2026-01-02T03:04:05.000Z'};
      await writeFile('checkpoints/mine/.model.lock', JSON.stringify(holder));
      await expect(recover(given)).rejects.toThrow(`is in use: process ${process.ppid} on`);
    } finally {
      process.chdir(cwd);
    }
  });

  it('that is not there is not resumed; the hint names the option that recover has', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'moe'), MOE);
    const given = {...options, model: join(folder, 'moe'), text: [resolve(TEXT)], set: TINY, name: 'nope'};
    await expect(recover({...given, mode: 'resume'})).rejects.toMatchObject({
      message: 'checkpoints/nope/model is not there: nothing can be resumed.',
      hint: 'Correct --name, or leave --resume out to start a run.',
    });
  });

  it('has as many samples whatever a step takes', () => {
    const set = ['train.batch={sequences: 2, accumulate: 4}'];
    expect(configOf({...options, set}, MOE).config.train.steps).toBe(2048 / 8);
    expect(() => configOf({...options, set: ['train.batch.sequences=4096']}, MOE)).toThrow('no step of 4096.');
  });

  it('needs samples for a step', () => {
    expect(() => configOf({...options, samples: 15}, MOE)).toThrow('15 samples make no step of 16.');
  });

  it('is told of by the words that asked for it, never by lines of a config that nobody wrote', () => {
    const {at} = configOf({...options, name: 'again', set: ['train.steps=50']}, MOE);
    expect(at(['model'])).toBe('recover models/moe');
    expect(at(['data', 'sources', 1, 'path'])).toBe('--text a');
    expect(at(['data', 'sequenceLength'])).toBe('--tokens 512');
    expect(at(['train', 'steps']), 'which gives way').toBe('--set train.steps=50');
    expect(at(['train', 'optimizer', 'lr']), 'ours').toBe('recover');
    const named = (): unknown => configOf({...options, name: 'a/b'}, MOE);
    expect(named).toThrow(/^--name a\/b: name: expected letters, digits/);
    const short = (): unknown => configOf({...options, set: ['train.steps=2']}, MOE);
    expect(short).toThrow(/^recover: train\.schedule\.warmup: schedule\.warmup must be less than steps/);
  });

  it('trains, and says the perplexity of parent, conversion and result', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'moe'), MOE);
    const set = TINY.flatMap((one) => ['--set', one]);
    const args = [
      'recover',
      'moe',
      '--text',
      resolve(TEXT),
      '--samples',
      '64',
      '--tokens',
      '32',
      '--name',
      'again',
      ...set,
    ];
    const {code, stdout, stderr} = await spawnCli(args, {cwd: folder});
    expect(code, stderr).toBe(0);
    const [before = 0, after = 0] = [...stdout.matchAll(/perplexity ([\d.]+)/g)].map(([, value]) => Number(value));
    expect(stdout).not.toContain('dense'); // it was drawn at random, and has no parent
    expect(after).toBeLessThan(before);
    const log = await readRunLog(join(folder, 'checkpoints/again/model/log.jsonl'));
    expect(Math.exp(log.findLast((record) => record.kind === 'eval')!.loss!)).toBeCloseTo(after, 1);
    const again = await spawnCli(args, {cwd: folder});
    expect(again.stderr).toContain('already exists');
    expect(again.stderr).toContain('choose another --name.');
  });
});
