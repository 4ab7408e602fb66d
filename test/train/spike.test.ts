import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {readRunLog} from '../../src/format/run-log.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {loadModel} from '../../src/model/model.js';
import {leavesOf, type ParameterSpec} from '../../src/model/parameters.js';
import {latestCheckpoint} from '../../src/train/checkpoint.js';
import {whereNotFinite} from '../../src/train/diagnosis.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {isApplied, lossLimit, maySkip, NO_LIMIT, spikeSchema, withLoss} from '../../src/train/spike.js';
import {createTrainState, disposeTrainState, readVariable, type TrainState} from '../../src/train/state.js';
import {createStepRunner, type StepResult} from '../../src/train/step-runner.js';
import {ConfigError} from '../../src/util/errors.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  FRESH,
  PLAIN_STEP,
  type RunChanges,
  ratesAt,
  SEED,
  SEQUENCE,
  stepsOf,
  tinyRun,
  writeModel,
} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling on a machine that may be busy

const SKIP = {policy: 'skip', factor: 1.02, window: 3} as const;
let folder = '';
const pathOf = (name: string): string => join(folder, name);
const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-spike-'));
  await writeModel(pathOf('model'), DENSE);
});
afterAll(() => rm(folder, {recursive: true}));

describe('the limit of a loss', () => {
  const options = spikeSchema.parse({policy: 'skip', factor: 2, window: 4});

  it('is the factor times the median of the last losses, once there are enough', () => {
    expect(lossLimit(options, [1, 5, 3])).toBe(NO_LIMIT);
    expect(lossLimit(options, [1, 5, 3, 100])).toBe(8);
    expect(lossLimit(options, [1, null, 3, 7])).toBe(6);
    expect(lossLimit(options, [null, null, null, null])).toBe(NO_LIMIT);
    expect(lossLimit({policy: 'none'}, [1, 2, 3, 4])).toBe(NO_LIMIT);
    expect(Math.fround(NO_LIMIT)).toBe(NO_LIMIT);
  });

  it('keeps as many losses as its window holds, spikes among them, and none where nothing is limited', () => {
    expect(
      [2, 3, 99, Number.NaN, 4].reduce<readonly (number | null)[]>(
        (all, loss) => withLoss(options, all, {loss, gradNorm: loss === 3 ? Number.POSITIVE_INFINITY : 1}),
        [],
      ),
    ).toEqual([null, 99, null, 4]);
    expect(withLoss({policy: 'none'}, [1, 2], {loss: 3, gradNorm: 1})).toEqual([]);
  });

  it('lets a step through at the limit, and none that is not finite', () => {
    const result = {loss: 8, gradNorm: 1};
    expect(isApplied(result, 8)).toBe(true);
    expect(isApplied(result, 7.9)).toBe(false);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(isApplied({...result, loss: bad}, NO_LIMIT)).toBe(false);
      expect(isApplied({...result, gradNorm: bad}, NO_LIMIT)).toBe(false);
    }
  });

  it('is not waited for where no loss of a whole window is finite', () => {
    expect(maySkip(options, [null, null, null])).toBe(true);
    expect(maySkip(options, [null, null, null, 2])).toBe(true);
    expect(maySkip(options, [null, null, null, null])).toBe(false);
    expect(maySkip(spikeSchema.parse({policy: 'stop'}), [])).toBe(false);
  });
});

const rows = (seed: number): ShardRows => ({tokens: integers([2 * (SEQUENCE + 1)], 274, seed).values as Int32Array});

async function withState(
  model: string,
  accumulates: boolean,
  law: (state: TrainState) => Promise<void>,
): Promise<void> {
  await expectNoLeak(async () => {
    const loaded = await loadModel(pathOf(model));
    const state = await createTrainState(loaded, {...FRESH, accumulates});
    await law(state);
    disposeTrainState(state);
    loaded.dispose();
  });
}

/** Weights and all that the optimizer keeps, accumulated gradients too. */
async function numbersOf({parameters, trained}: TrainState): Promise<number[][]> {
  const kept = trained.flatMap(({slots, sum}) => [...slots.values(), ...(sum ? [sum] : [])]);
  const numbers: number[][] = [];
  for (const variable of [...leavesOf(parameters), ...kept]) numbers.push([...(await readVariable(variable))]);
  return numbers;
}

describe('a step above the limit of its loss', () => {
  for (const engine of ['wasm', 'tensorflow-compiled'] as const) {
    for (const accumulates of [false, true]) {
      const how = accumulates ? 'of two micro-batches' : 'at once';
      onEngine(engine, `${how} changes nothing; at the limit it is the step without one`, () =>
        withState('model', accumulates, async (state) => {
          const batches = accumulates ? [rows(1), rows(2)] : [rows(1)];
          const runner = createStepRunner(state, PLAIN_STEP);
          const step = (lossLimit: number): Promise<StepResult> =>
            runner.run(batches, {...ratesAt(0.01, 1), lossLimit}, SEED);
          const before = await numbersOf(state);
          const {loss, gradNorm} = await step(1);
          expect(isApplied({loss, gradNorm}, 1)).toBe(false);
          expect(await numbersOf(state)).toEqual(before);
          expect(await step(loss), 'nothing was changed').toMatchObject({loss, gradNorm});
          expect(await numbersOf(state)).not.toEqual(before);
          runner.dispose();
        }),
      );
    }
  }
});

describe('a run', () => {
  const skipping: RunChanges = {
    train: {steps: 14, spike: SKIP, batch: {sequences: 1}, optimizer: {lr: 3e-2}, checkpoint: {every: 4}},
  };

  it('that skips leaves out the steps whose loss is above the limit, logs them, and says so', async () => {
    const notes: string[] = [];
    await train(wasm({...skipping, out: 'skip'}), (event) => {
      if (event.kind === 'note') notes.push(event.text);
    });
    const steps = await stepsOf(pathOf('skip'));
    const losses = steps.map(({loss}) => loss!);
    const expected = losses.map(
      (loss, i) => i >= 3 && loss > 1.02 * [...losses.slice(i - 3, i)].sort((a, b) => a - b)[1]!,
    );
    expect(steps.map(({skipped}) => skipped ?? false)).toEqual(expected);
    expect(expected.filter((skipped) => skipped).length, 'this run has spikes').toBeGreaterThan(0);
    expect(notes).toHaveLength(expected.filter((skipped) => skipped).length);
    expect(notes[0]).toMatch(/^step \d+ was skipped: loss /);
    const {trainer} = (await latestCheckpoint(pathOf('skip')))!;
    expect(trainer.applied, 'what the optimizer counts').toBe(expected.filter((skipped) => !skipped).length);
  });

  it('that skipped goes on with the same bytes when it is killed', async () => {
    const first = (await stepsOf(pathOf('skip'))).find(({skipped}) => skipped)!.step;
    const changes = {...skipping, out: 'skip-killed', train: {...skipping.train, checkpoint: {every: first}}};
    await expect(train(wasm(changes), crashAfter(first + 1))).rejects.toThrow('crash');
    await train(wasm({...changes, mode: 'resume'}));
    expect(await exactLines(pathOf('skip-killed'), ['step'])).toEqual(await exactLines(pathOf('skip'), ['step']));
    const weights = 'step-000014/model/model.safetensors';
    expect((await readFile(pathOf(`skip-killed/${weights}`))).equals(await readFile(pathOf(`skip/${weights}`)))).toBe(
      true,
    );
  });

  it('that stops saves the state before the spike, and removes none', async () => {
    const first = (await stepsOf(pathOf('skip'))).find(({skipped}) => skipped)!;
    const stopping = {...skipping.train, spike: {...SKIP, policy: 'stop'}, checkpoint: {every: 1, keep: 1}} as const;
    const changes: RunChanges = {
      ...skipping,
      out: 'stop',
      train: {...stopping, checkpoint: {every: first.step - 2, keep: 1}},
    };
    const error: unknown = await train(wasm(changes)).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toContain(
      `stop: the loss of step ${first.step} is a spike (${first.loss}, the limit`,
    );
    const last = (await latestCheckpoint(pathOf('stop')))!;
    expect(last.trainer.step).toBe(first.step - 1);
    expect((await readdir(pathOf('stop'))).filter((name) => name.startsWith('step-'))).toHaveLength(2);
    expect((await readRunLog(pathOf('stop/log.jsonl'))).at(-1)).toMatchObject({kind: 'end', reason: 'failed'});
    await expect(train(wasm({...changes, mode: 'resume'})), 'resumed, it meets the same step').rejects.toThrow(
      (error as Error).message,
    );
    const skips = {...stopping, checkpoint: {every: 0}, spike: SKIP};
    const other: RunChanges = {...changes, hash: 'other', train: skips, mode: 'resume'};
    await expect(train(wasm(other))).rejects.toThrow('another config');
    expect(await train(wasm({...other, allowsChange: true}))).toMatchObject({reason: 'completed'});
    const records = await readRunLog(pathOf('stop/log.jsonl'));
    expect(records.findLast(({kind}) => kind === 'resume')).toMatchObject({configHash: 'other', changed: ['config']});
    expect(await exactLines(pathOf('stop'), ['step'])).toEqual(await exactLines(pathOf('skip'), ['step']));
    expect(await train(wasm(other)), 'which is complete now').toMatchObject({reason: 'completed'});
  });

  it('that stops right after a light checkpoint makes it whole', async () => {
    const first = (await stepsOf(pathOf('skip'))).find(({skipped}) => skipped)!;
    const checkpoint = {every: first.step - 1, optimizer: false};
    const changes: RunChanges = {
      out: 'light',
      train: {...skipping.train, spike: {...SKIP, policy: 'stop'}, checkpoint},
    };
    await expect(train(wasm({...skipping, ...changes}))).rejects.toThrow('is a spike');
    const last = (await latestCheckpoint(pathOf('light')))!;
    expect(last.trainer.step).toBe(first.step - 1);
    expect((await readdir(last.path)).sort()).toEqual(['model', 'optimizer', 'trainer.json']);
    await expect(train(wasm({...skipping, ...changes, mode: 'resume'}))).rejects.toThrow('is a spike');
  });

  it('that skips stops where a whole window has no finite gradient, though every loss is', () => {
    const infinite = {loss: 3, gradNorm: Number.POSITIVE_INFINITY};
    const options = spikeSchema.parse({policy: 'skip', window: 2});
    const recent = withLoss(options, withLoss(options, [], infinite), infinite);
    expect(maySkip(options, withLoss(options, [], infinite))).toBe(true);
    expect(maySkip(options, recent)).toBe(false);
  });

  it('that skips stops where a whole window has no finite loss', async () => {
    const changes: RunChanges = {
      out: 'endless',
      train: {steps: 30, optimizer: {lr: 1e9}, spike: {...SKIP, factor: 1e30}},
    };
    await expect(train(wasm(changes))).rejects.toThrow(
      /training diverged at step \d+ \(loss NaN, .* first not finite: /,
    );
    expect((await stepsOf(pathOf('endless'))).map(({skipped}) => skipped ?? false)).toEqual([false, false, true, true]);
  });
});

describe('the place of what is not finite', () => {
  const first = (poison: (spec: ParameterSpec, values: Float32Array) => Float32Array): Promise<string | null> =>
    new Promise((resolve, reject) => {
      const look = async (): Promise<void> => {
        const model = `poisoned-${Math.random()}`;
        await writeModel(pathOf(model), DENSE, poison);
        await withState(model, false, async (state) =>
          resolve(await whereNotFinite(state, PLAIN_STEP, [rows(1)], SEED)),
        );
      };
      look().catch(reject);
    });
  const fill =
    (path: string, value: number) =>
    (spec: ParameterSpec, values: Float32Array): Float32Array =>
      spec.path === path ? values.fill(value) : values;

  for (const engine of ['wasm', 'tensorflow-compiled'] as const) {
    onEngine(engine, 'is the layer whose hidden states are the first, or the gradient that is met first', async () => {
      expect(await first((_, values) => values)).toBeNull();
      expect(await first(fill('layers.1.ffnNorm', 3e38))).toBe('hidden states of layers.1');
      expect(await first(fill('norm', 3e38))).toBe('hidden states after the last layer');
      const steep = (spec: ParameterSpec, values: Float32Array): Float32Array =>
        fill('layers.0.ffn.down', 1e30)(spec, fill('layers.0.ffn.gate', 0)(spec, values));
      expect(await first(steep)).toBe('layers.0.ffn.gate');
    });
  }
});
