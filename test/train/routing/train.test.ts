import {join} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import type {Architecture, FfnLayout} from '../../../src/model/architecture.js';
import type {TrainInput} from '../../../src/train/options.js';
import {train} from '../../../src/train/run.js';
import {ConfigError} from '../../../src/util/errors.js';
import {
  DENSE,
  exactLines,
  experts,
  type RunChanges,
  stepsOf,
  tempFolder,
  tiny,
  tinyRun,
  writeModel,
} from '../support.js';

vi.setConfig({testTimeout: 240_000});

type Routing = NonNullable<TrainInput['routing']>;

const KINDS: readonly [Routing, Partial<TrainInput>][] = [
  [{kind: 'jitter', amount: 0.5}, {}],
  [{kind: 'noisy'}, {balance: {kind: 'cv2'}}],
  [{kind: 'expert-dropout', share: 0.25}, {}],
  [{kind: 'all-experts', temperature: 0.5}, {balance: {kind: 'cv2'}}],
  [{kind: 'expert-choice', capacityFactor: 1}, {balance: {kind: 'none'}}],
  [{kind: 'base'}, {balance: {kind: 'none'}}],
  [{kind: 'sparse-mixer'}, {}],
];

describe('routing in training', () => {
  it.each(KINDS)('%o is that of its seed and step, whenever the run was stopped', async (routing, options) => {
    const folder = await tempFolder();
    const {routing: words, ...architecture} = tiny([experts(8, 1)]);
    const reach = routing.kind === 'sparse-mixer' && {reach: 1};
    await writeModel(join(folder, 'model'), {...architecture, routing: {...words, ...reach}});
    const changes = (out: string, more: Partial<TrainInput> = {}): RunChanges => ({
      out,
      engine: {device: 'wasm'},
      train: {steps: 4, batch: {sequences: 2, accumulate: 2}, routing, ...options, ...more},
    });
    const lines = async (out: string, more: RunChanges): Promise<string[]> => {
      await train(tinyRun(folder, more));
      return exactLines(join(folder, out));
    };
    const whole = await lines('whole', changes('whole'));
    await train(tinyRun(folder, changes('halved')), (event) => {
      if (event.kind === 'step' && event.step === 2) process.emit('SIGTERM', 'SIGTERM');
    });
    expect(await lines('halved', {...changes('halved'), mode: 'resume'})).toEqual(whole);
    const plain = await lines('plain', changes('plain', {routing: {kind: 'as-is'}}));
    expect(plain[0], 'validation is as the model says').toBe(whole[0]);
    expect(plain[1], 'training is not').not.toBe(whole[1]);
  });

  it('is not taken notice of in a dense model, which is said', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const notes: string[] = [];
    const run = tinyRun(folder, {
      engine: {device: 'wasm'},
      train: {steps: 1, routing: {kind: 'noisy'}, capacity: {factor: 2}, optimizer: {rates: {ffn: 1e-3, scales: 1e-3}}},
    });
    await train(run, (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(notes).toContain('The model has no experts, so nothing comes of train.routing (noisy), train.capacity.');
    expect(notes).toContain('The model has no scales: nothing comes of train.optimizer.rates for them.');
  });

  it.each([
    [{kind: 'expert-choice'}, 2],
    [{kind: 'base'}, 1],
  ] as const)('%o says that later tokens take part, and loads all experts alike', async (routing, topK) => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), tiny([experts(8, topK)]));
    const notes: string[] = [];
    const run = tinyRun(folder, {engine: {device: 'wasm'}, train: {steps: 1, routing, balance: {kind: 'none'}}});
    await train(run, (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    expect(notes.join()).toContain('the training loss looks better than it is');
    expect((await stepsOf(run.out))[0]).toMatchObject({load: [new Array(8).fill(1 / 8)], overflow: 0});
  });
});

describe('routing that a model cannot be trained with', () => {
  const EVEN = {balance: {kind: 'none'}} as const;
  const LAYOUT = experts(8, 2);
  const BASE = {routing: {kind: 'base'}, ...EVEN} as const;
  const DRAW = {routing: {kind: 'sparse-mixer'}} as const;
  const INNER = {experts: 2, topK: 1, expertWidth: 8, weight: 'score'} as const;
  const share = (topK: number, of: number) =>
    [experts(8, topK), {routing: {kind: 'expert-dropout', share: of}}] as [FfnLayout, Partial<TrainInput>];

  const choice = (capacityFactor = 1) => ({routing: {kind: 'expert-choice', capacityFactor} as const, ...EVEN});

  it.each<[string, FfnLayout, Partial<TrainInput>, string, string, Partial<Architecture['routing']>?]>([
    ['a share of experts that is none', ...share(1, 0.05), 'at least one must be left out', 'from 0.125 to 0.75 fits'],
    ['dropout of too many', ...share(2, 0.7), 'layer 0 is 6, and a token uses 2: more', 'from 0.125 to 0.625 fits'],
    ['dropout where all are used', ...share(8, 0.5), 'layer 0 is 4, and a token uses 8: none can', 'Leave'],
    [
      'dropout with biases',
      LAYOUT,
      {routing: {kind: 'expert-dropout'}, balance: {kind: 'bias'}},
      'bias would move',
      'aux',
    ],
    [
      'balance where all are used',
      LAYOUT,
      {routing: {kind: 'all-experts'}},
      'is aux, but train.routing.kind all',
      'none',
    ],
    ['biases and a reach', LAYOUT, {balance: {kind: 'bias'}}, 'bias moves choices', 'aux', {reach: 0.1}],
    ['a reach that is not known', LAYOUT, choice(), 'expert-choice knows no reach', 'sparse-mixer', {reach: 0.1}],
    [
      'rows of none',
      LAYOUT,
      choice(0.001),
      'train.routing.capacityFactor: 0.001 gives each of the 8 experts of layer 0 0 of the 256',
      'Raise',
    ],
    [
      'rows beyond all',
      LAYOUT,
      choice(9),
      'capacityFactor: 9 gives each of the 8 experts of layer 0 576 of the 256 tokens',
      'Lower it.',
    ],
    ['balance of what is even', LAYOUT, {...choice(), balance: {}}, 'train.balance.kind is aux, but', 'kind: none'],
    ['a capacity', LAYOUT, {...choice(), capacity: {factor: 1}}, 'train.capacity has a factor', 'Leave'],
    ['a bias unheard', {...LAYOUT, selectionBias: true}, choice(), 'expert-choice knows no selection biases', 'as-is'],
    ['experts inside', {...LAYOUT, inner: INNER}, choice(), 'knows no experts inside experts', 'as-is'],
    ['assignment of two', LAYOUT, BASE, 'base gives each token one expert, the tokens of this model use 2', 'topK 1'],
    [
      'even experts and biases',
      experts(8, 1),
      {...BASE, balance: {kind: 'bias'}},
      'train.balance.kind is bias',
      'none',
    ],
    ['a draw of three', experts(8, 3), DRAW, 'sparse-mixer gives each token two experts at most, the', 'topK 2'],
    ['a draw among all', LAYOUT, DRAW, 'sparse-mixer weighs experts by their softmax among', '"reach": 0.02'],
    ['a sum that is not there', LAYOUT, choice(), "divides by the sum of a token's own", 'as-is', {renormalise: true}],
  ])('is refused: %s', async (_, layout, options, message, hint, words = {}) => {
    const folder = await tempFolder();
    const {routing, ...architecture} = tiny([layout]);
    await writeModel(join(folder, 'model'), {...architecture, routing: {...routing, ...words}});
    const run = tinyRun(folder, {engine: {device: 'wasm'}, train: {steps: 1, ...options}});
    const error: unknown = await train(run).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).message).toContain(message);
    expect((error as ConfigError).hint).toContain(hint);
  });
});
