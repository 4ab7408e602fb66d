import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {describe, expect, onTestFinished, test} from 'vitest';
import {loadConfig, parseConfig} from '../../src/config/load.js';
import type {Config} from '../../src/config/schema.js';
import {ConfigError, type DowncycleError, UsageError} from '../../src/util/errors.js';

const BASE = `model: some/model
data:
  sources:
    - {name: a, path: a.txt}
`;

/** The error of a config that is the base above and more. */
function failure(more: string, set: readonly string[] = []): DowncycleError {
  return failureOf(BASE + more, set);
}

function failureOf(text: string, set: readonly string[] = []): DowncycleError {
  try {
    parseConfig(text, 'x.yaml', {set});
  } catch (error) {
    return error as DowncycleError;
  }
  throw new Error('the config has no fault');
}

function configOf(more: string, set: readonly string[] = []): Config {
  return parseConfig(BASE + more, 'x.yaml', {set}).config;
}

describe('a config', () => {
  test('needs a model and sources and nothing else', () => {
    const config = configOf('');
    expect(config.train.optimizer).toEqual({
      ...{kind: 'adamw', lr: 4e-4, betas: [0.9, 0.95], eps: 1e-8},
      ...{weightDecay: 0.1, clip: 1, rates: {}},
    });
    expect(config.train.schedule).toEqual({kind: 'cosine', warmup: 0, final: 0});
    expect(config.train.balance).toEqual({kind: 'aux', weight: 0.01, scope: 'batch', zLoss: 0.001});
    expect(config.arms).toEqual({});
  });

  test('reads numbers with an exponent as numbers', () => {
    expect(configOf('train: {optimizer: {lr: 1e-3}}\n').train.optimizer.lr).toBe(0.001);
  });

  test('lists every mistake at its line and column, in their order', () => {
    const error = failure('train:\n  steps: many\n  batch: {sequences: 0}\nseed: -1\n');
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message.split('\n')).toEqual([
      'x.yaml:6:10: train.steps: expected a number such as 4096, 200k or 1.5B, found "many".',
      'x.yaml:7:22: train.batch.sequences: must be at least 1, found 0.',
      'x.yaml:8:7: seed: must be at least 0, found -1.',
    ]);
  });

  test('shows the first errors of what is no YAML, and counts the others', () => {
    const {message} = failureOf(Array.from({length: 40}, (_, i) => `line: ${i}: of: prose`).join('\n'));
    const lines = message.split('\n');
    expect(lines).toHaveLength(6);
    expect(lines[0]).toMatch(/^x\.yaml:1:\d+: /);
    expect(lines[5]).toMatch(/^x\.yaml: \d+ more like these; is it a YAML file\?$/);
  });

  test('says nothing of the warm-up where the steps it is measured by are no number of steps', () => {
    expect(failure('train: {steps: -1}\n').message).toBe('x.yaml:5:16: train.steps: must be at least 1, found -1.');
    expect(failure('train: {steps: 1.5}\n').message).toMatch(/^x.yaml:5:16: train.steps: expected a whole number/);
  });

  test('says nothing of the end of a schedule where its peak is no rate', () => {
    expect(failure('train: {optimizer: {lr: -1}}\n').message).toBe(
      'x.yaml:5:25: train.optimizer.lr: must be more than 0, found -1.',
    );
  });

  test('names an entry of a list by its number', () => {
    expect(failureOf('model: m\ndata:\n  sources:\n    - {name: a, path: b}\n    - {name: c, path: 3}\n').message).toBe(
      'x.yaml:5:23: data.sources[1].path: expected a string or a list, found 3.',
    );
  });

  test('shows a missing key at the section that lacks it', () => {
    expect(failureOf('model: m\ndata:\n  sources:\n    - name: a\n').message).toBe(
      'x.yaml:4:7: data.sources[0].path: missing; expected a string or a list.',
    );
    expect(failureOf('data:\n  sources: [{name: a, path: b}]\n').message).toBe(
      'x.yaml:1:1: model: missing; expected a string.',
    );
  });

  test('follows an alias to where the value stands', () => {
    const text = 'model: m\ndata:\n  sources: [&a {name: a, path: 3}, *a]\n';
    expect(failureOf(text).message).toContain(
      'x.yaml:3:32: data.sources[1].path: expected a string or a list, found 3.',
    );
  });

  test('says which of several kinds a value is closest to', () => {
    expect(failure('train: {capacity: {facto: 1}}\n').message).toContain('train.capacity.facto: unknown key; did you');
    expect(failure('train: {capacity: [1]}\n').message).toContain(
      'train.capacity: expected dropless or a section of keys, found a list.',
    );
    expect(failure('train: {steps: [1]}\n').message).toContain('expected a number or a string, found a list.');
  });

  test('refuses to warm up for as long as it trains, and to end above its peak', () => {
    expect(failure('train: {steps: 5, schedule: {warmup: 5}}\n').message).toContain(
      'train.schedule.warmup: schedule.warmup must be less than steps.',
    );
    expect(failure('train: {optimizer: {lr: 1e-4}, schedule: {final: 1e-3}}\n').message).toContain(
      'train.schedule.final: schedule.final must be at most optimizer.lr',
    );
  });

  test('says which kinds of training there are, and what one of them needs', () => {
    expect(failure('train: {finetune: {kind: qlora}}\n').message).toContain('expected one of full, parts, lora');
    expect(failure('train: {finetune: {kind: lora}}\n').message).toBe(
      'x.yaml:5:9: train.finetune.targets: missing; expected a list.',
    );
  });
});

describe('an unknown key', () => {
  test('is answered with the key that was meant', () => {
    expect(failure('train: {stpes: 3}\n').message).toBe('x.yaml:5:9: train.stpes: unknown key; did you mean steps?');
  });

  test('is answered with the section it belongs to', () => {
    expect(failure('train: {lr: 3}\n').message).toBe(
      'x.yaml:5:9: train.lr: unknown key; did you mean train.optimizer.lr?',
    );
  });

  test('is answered with the keys there are if none is like it', () => {
    expect(failure('report: {colours: 3}\n').message).toBe(
      'x.yaml:5:10: report.colours: unknown key; known here are out, smoothing, x.',
    );
  });

  test('of another method is answered with the keys of this one', () => {
    expect(failure('arms:\n  a: {method: random, experts: 3, topK: 1, assignment: greedy}\n').message).toBe(
      'x.yaml:6:44: arms.a.assignment: unknown key; known here are method, experts, shared, topK, pad, router, weights, outputScale, regroup, repair, repairWeight, allocation.',
    );
  });

  test('may be called __proto__', () => {
    expect(failure('__proto__: {seed: 3}\n').message).toContain('x.yaml:5:1: __proto__: unknown key');
  });
});

describe('an arm', () => {
  const random = '  a: {method: random, experts: 3, topK: 1}\n';

  test('has a method that exists', () => {
    expect(failure('arms:\n  a: {method: expertwever, experts: 3, topK: 1}\n').message).toBe(
      'x.yaml:6:15: arms.a.method: expected one of expertweaver, cmoe, weave, moefication, llama-moe, random, contiguous, all-shared, sparse-upcycle, drop-upcycle, noise-upcycle, granular-upcycle, dive, found "expertwever"; did you mean expertweaver?',
    );
    expect(failure('arms:\n  a: {experts: 3, topK: 1}\n').message).toContain('arms.a.method: missing; expected one of');
  });

  test('takes its architecture from another arm', () => {
    const {arms} = configOf(`arms:\n${random}  b: {like: a}\n`);
    expect(arms.b).toEqual({like: 'a', init: 'scratch'});
  });

  test('cannot take its architecture from an arm that is not there, is itself, or takes its own from another', () => {
    expect(failure(`arms:\n${random}  b: {like: c}\n`).message).toBe(
      'x.yaml:7:13: arms.b.like: there is no arm c to take; there are a.',
    );
    expect(failure(`arms:\n${random}  b: {like: b}\n`).message).toContain('arms.b.like: there is no arm b to take');
    expect(failure(`arms:\n${random}  b: {like: a}\n  c: {like: b}\n`).message).toContain(
      'arms.c.like: arm b takes its architecture from another arm; name a instead.',
    );
  });

  test('that is chosen exists', () => {
    expect(failure(`arms:\n${random}arm: b\n`).message).toBe(
      'x.yaml:7:6: arm: there is no arm b to take; there are a.',
    );
  });

  test('has a name that can be a folder, and is none that an experiment has anyway', () => {
    expect(failure('arms:\n  shards: {method: random, experts: 3, topK: 1}\n').message).toContain(
      'x.yaml:6:3: arms.shards: cannot be the name of an arm',
    );
    expect(failure('arms:\n  a/b: {method: random, experts: 3, topK: 1}\n').message).toContain(
      'x.yaml:6:3: arms.a/b: expected letters, digits',
    );
  });
});

describe('--set', () => {
  test('wins over the file, and the last one over the others', () => {
    expect(configOf('seed: 1\n', ['seed=2', 'seed=3']).seed).toBe(3);
  });

  test('makes sections that the file lacks, reads YAML, and counts list entries from 0', () => {
    const config = configOf('train:\n', ['train.batch.sequences=4', 'train.steps=2k', 'data.sources[0].weight=3']);
    expect(config.train.batch.sequences).toBe(4);
    expect(config.train.steps).toBe(2000);
    expect(config.data.sources[0]?.weight).toBe(3);
    expect(configOf('', ['train.schedule={kind: constant}']).train.schedule).toEqual({kind: 'constant', warmup: 0});
  });

  test.each([
    ['trian.steps=2', '--set trian.steps=2: trian: unknown key; did you mean train?'],
    [
      'profile.task=domain',
      '--set profile.task=domain: profile.task: expected source or a section of keys, found "domain".',
    ],
    [
      'profile.task={fields: x}',
      '--set profile.task={fields: x}: profile.task.fields: unknown key; did you mean field?',
    ],
    [
      'train.optimizer.rates.router=1e-3',
      '--set train.optimizer.rates.router=1e-3: train.optimizer.rates.router: unknown key; did you mean routers?',
    ],
    ['train.stpes=2', '--set train.stpes=2: train.stpes: unknown key; did you mean steps?'],
    [
      'train.batch.sequences=two',
      '--set train.batch.sequences=two: train.batch.sequences: expected a number, found "two".',
    ],
    ['model.path=x', '--set model.path=x: model is not a section; it has no key path.'],
    [
      'data.sources[1].path=x',
      '--set data.sources[1].path=x: data.sources has 1 entry; the first is [0], there is no [1].',
    ],
    ['data.sources.path=x', '--set data.sources.path=x: data.sources is not a section; it has no key path.'],
    ['train[0]=x', '--set train[0]=x: train is not a list; it has no entry [0].'],
    ['steps', '--set steps: expected path=value.'],
    ['train[=x', '--set train[=x: train[ is no path such as data.sources[0].weight.'],
    ['seed=[', '--set seed=[: the value is not YAML: Flow sequence must end with a ].'],
    ['__proto__.x=3', '--set __proto__.x=3: __proto__: unknown key; known here are name, seed,'],
  ])('%s is refused as a mistake of the command line', (set, message) => {
    const error = failure('train: {}\n', [set]);
    expect(error).toBeInstanceOf(UsageError);
    expect(error.message).toContain(message);
  });

  test('is no excuse for mistakes in the file', () => {
    const error = failure('seed: x\n', ['train.steps=x']);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain('--set train.steps=x: train.steps:');
    expect(error.message).toContain('x.yaml:5:7: seed:');
  });
});

describe('a file', () => {
  test.each([
    ['model: [1\nb: 2\n', 'x.yaml:2:1: Flow sequence in block collection must be'],
    ['seed: 1\nseed: 2\n', 'x.yaml:2:1: Map keys must be unique.'],
    ['seed: !!odd 3\n', 'x.yaml:1:7: Unresolved tag: tag:yaml.org,2002:odd.'],
    ['seed: *one\n', 'x.yaml:1:1: Unresolved alias (the anchor must be set before the alias): one.'],
    ['- a\n', 'x.yaml:1:1: this is no section of keys.'],
    ['# nothing\n', 'x.yaml:1:1: the file is empty.'],
  ])('%j is refused with the line', (text, message) => {
    const error = failureOf(text);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toContain(message);
  });

  test('that nests aliases to swell is refused', () => {
    const levels = Array.from({length: 12}, (_, i) => `a${i + 1}: &a${i + 1} [${`*a${i}, `.repeat(9)}]`);
    expect(failureOf(`a0: &a0 [x]\n${levels.join('\n')}\n`).message).toContain('x.yaml:1:1: Excessive alias count');
  });

  test('that is missing, or is a folder, is named', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'downcycle-test-'));
    onTestFinished(() => rmSync(folder, {recursive: true}));
    const missing = join(folder, 'no.yaml');
    await expect(loadConfig(missing)).rejects.toThrow(`${missing}: there is no such file.`);
    await expect(loadConfig(folder)).rejects.toMatchObject({
      message: `${folder}: this is a folder, a file was expected.`,
      hint: 'A model is named in a config, by its key `model`; configs/ holds configs to start from.',
    });
  });

  test('tells where a key stands, or which override gave it', () => {
    const {at} = parseConfig(`${BASE}seed: 3\n`, 'x.yaml', {set: ['train.steps=4']});
    expect(at(['seed'])).toBe('x.yaml:5:7');
    expect(at(['train', 'steps'])).toBe('--set train.steps=4');
    expect(at(['profile', 'cv'], ['seed'])).toBe('x.yaml:5:7');
    expect(at(['profile', 'cv'], ['train', 'steps'])).toBe('--set train.steps=4');
  });
});
