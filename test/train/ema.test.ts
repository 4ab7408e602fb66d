import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it, vi} from 'vitest';
import {evaluationBatches} from '../../src/data/evaluation.js';
import {closeShards, ensureShards} from '../../src/data/shards.js';
import type {Variable} from '../../src/engine/variable.js';
import {inspect} from '../../src/experiment/inspect.js';
import {readRunLog} from '../../src/format/run-log.js';
import type {EvalRecord} from '../../src/format/run-record.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import {readReportRun} from '../../src/report/read-run.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {mergeAdapter} from '../../src/train/merge.js';
import type {TrainInput} from '../../src/train/options.js';
import {train} from '../../src/train/run.js';
import type {TrainRun} from '../../src/train/session.js';
import {createTrainState, disposeTrainState, readVariable, type TrainState} from '../../src/train/state.js';
import {createStepRunner} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  FRESH,
  MOE,
  PLAIN_STEP,
  type RunChanges,
  ratesAt,
  SEED,
  SEQUENCE,
  tinyRun,
  writeModel,
} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 120_000}); // compiling on a machine that may be busy

const DECAY = 0.7;
let folder = '';
const pathOf = (name: string): string => join(folder, name);
const wasm = (changes: RunChanges): TrainRun => tinyRun(folder, {engine: {device: 'wasm'}, ...changes});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'downcycle-ema-'));
  await writeModel(pathOf('model'), DENSE);
});
afterAll(() => rm(folder, {recursive: true}));

const rows = (seed: number): ShardRows => ({tokens: integers([2 * (SEQUENCE + 1)], 274, seed).values as Int32Array});

async function valuesOf(variables: readonly Variable[]): Promise<number[]> {
  const values: number[] = [];
  for (const variable of variables) values.push(...(await readVariable(variable)));
  return values;
}

const weights = ({trained}: TrainState): Promise<number[]> => valuesOf(trained.map(({variable}) => variable));
const means = ({trained}: TrainState): Promise<number[]> => valuesOf(trained.map(({ema}) => ema!));

describe('the running mean', () => {
  const law = (accumulates: boolean) => (): Promise<void> =>
    expectNoLeak(async () => {
      const model = await loadModel(pathOf('model'));
      const state = await createTrainState(model, {...FRESH, accumulates, averages: true});
      const runner = createStepRunner(state, {...PLAIN_STEP, emaDecay: DECAY});
      const batches = accumulates ? [rows(1), rows(2)] : [rows(1)];
      let expected = await weights(state);
      expect(await means(state), 'begins at the start').toEqual(expected);
      for (let t = 1; t <= 3; t++) {
        await runner.run(batches, ratesAt(0.01, t), SEED);
        const now = await weights(state);
        expected = expected.map((mean, i) => DECAY * mean + (1 - DECAY) * now[i]!);
      }
      const found = await means(state);
      expect([found]).toBeAllClose([expected], {rtol: 1e-6, atol: 1e-8});
      await runner.run(batches, {...ratesAt(0.01, 4), lossLimit: 0}, SEED);
      expect(await means(state), 'of a step that changes nothing').toEqual(found);
      runner.dispose();
      disposeTrainState(state);
      model.dispose();
    });

  onEngine('wasm', 'is that of float64', law(false));
  onEngine('wasm', 'is that of float64 with two micro-batches', law(true));
  onEngine('tensorflow-compiled', 'is that of float64', law(false));
});

describe('a run that keeps running means', () => {
  const OPTIONS = {
    steps: 5,
    ema: {decay: DECAY},
    validation: {every: 2, maxRows: 16},
    checkpoint: {every: 2, keep: 9},
  } as const;
  const lora = (merge: boolean): NonNullable<TrainInput['finetune']> => ({
    kind: 'lora',
    rank: 2,
    alpha: 4,
    targets: ['attention'],
    merge,
  });
  const lastLoss = async (out: string, split: string): Promise<number> =>
    (await readRunLog(pathOf(`${out}/log.jsonl`)))
      .filter((record): record is EvalRecord => record.kind === 'eval' && record.split === split)
      .at(-1)!.loss!;

  it.each([
    ['full', {kind: 'full'}],
    ['lora', lora(true)],
  ] as const)('validates them, and saves a model of that loss: %s', async (out, finetune) => {
    await train(wasm({out, train: {...OPTIONS, finetune}}));
    for (const [part, split] of [
      ['model', 'valid'],
      ['ema', 'valid-ema'],
    ] as const) {
      expect(await validationLoss(pathOf(`${out}/step-000005/${part}`))).toBeCloseTo(await lastLoss(out, split), 6);
    }
    expect(await lastLoss(out, 'valid-ema')).not.toBe(await lastLoss(out, 'valid'));
    const {validation} = await readReportRun(pathOf(out));
    expect(
      validation.points.map(({step}) => step),
      'drawn are the losses of the weights',
    ).toEqual([0, 2, 4, 5]);
    expect(validation.points.at(-1)!.loss).toBe(await lastLoss(out, 'valid'));
    const inspected = await inspect(pathOf(out));
    expect(inspected.kind === 'run' && inspected.evals.at(-1)!.loss, 'and told').toBe(await lastLoss(out, 'valid'));
  });

  it.each([
    ['full', {kind: 'full'}],
    ['lora', lora(true)],
  ] as const)('has the same bytes when it was killed and goes on: %s', async (whole, finetune) => {
    const changes: RunChanges = {out: `${whole}-killed`, train: {...OPTIONS, finetune}};
    await expect(train(wasm(changes), crashAfter(3))).rejects.toThrow('crash');
    await train(wasm({...changes, mode: 'resume'}));
    expect(await exactLines(pathOf(`${whole}-killed`))).toEqual(await exactLines(pathOf(whole)));
    for (const file of ['ema/model.safetensors', 'model/model.safetensors']) {
      const [one, two] = await Promise.all(
        [whole, `${whole}-killed`].map((out) => readFile(pathOf(`${out}/step-000005/${file}`))),
      );
      expect(one!.equals(two!), file).toBe(true);
    }
  });

  it('saves the means of low-rank terms as such where the model is not merged', async () => {
    await train(wasm({out: 'thin', train: {...OPTIONS, steps: 1, finetune: lora(false)}}));
    const names = await readdir(pathOf('thin/step-000001'));
    expect(names.sort()).toEqual(['adapter', 'ema', 'optimizer', 'trainer.json']);
    expect((await readdir(pathOf('thin/step-000001/ema'))).sort()).toEqual(
      (await readdir(pathOf('thin/step-000001/adapter'))).sort(),
    );
  });

  it('merges to the model that was validated, with the biases that balance it', async () => {
    await writeModel(pathOf('mixture'), MOE);
    const options = {...OPTIONS, steps: 4, finetune: lora(false), balance: {kind: 'bias', rate: 0.3}} as const;
    await train(wasm({model: 'mixture', out: 'biased', train: options}));
    await mergeAdapter({adapter: pathOf('biased/step-000004/ema'), out: pathOf('mean')});
    expect(await validationLoss(pathOf('mean'))).toBeCloseTo(await lastLoss('biased', 'valid-ema'), 5);
    await mergeAdapter({adapter: pathOf('biased'), out: pathOf('newest')});
    expect(await validationLoss(pathOf('newest'))).toBeCloseTo(await lastLoss('biased', 'valid'), 5);
  });
});

/** Loss on the held-out rows of the run, by a meter of its own. */
async function validationLoss(path: string): Promise<number> {
  const {data, shards, train: options} = wasm({});
  const model = await loadModel(path);
  const sources = await ensureShards(data, await loadTokenizer(path), shards);
  const meter = createLossMeter(model, data.sequenceLength, 'float32');
  try {
    return (await meter.measure(evaluationBatches(sources[0]!.valid!, options.batch.sequences, 16))).loss;
  } finally {
    meter.dispose();
    model.dispose();
    await closeShards(sources);
  }
}
