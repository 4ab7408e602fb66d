import {readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {readModelConfig} from '../../src/format/model-folder.js';
import {readRunLog} from '../../src/format/run-log.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import type {Architecture} from '../../src/model/architecture.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import {leavesOf, parameterSpecs} from '../../src/model/parameters.js';
import {readArchitecture} from '../../src/model/read-architecture.js';
import {checkpointModel, latestCheckpoint} from '../../src/train/checkpoint.js';
import {type FinetuneOptions, finetuneSchema, selectParameters} from '../../src/train/finetune.js';
import {mergeAdapter} from '../../src/train/merge.js';
import type {TrainInput} from '../../src/train/options.js';
import {partOf} from '../../src/train/part.js';
import {train} from '../../src/train/run.js';
import {
  createTrainState,
  disposeTrainState,
  readVariable,
  type StateOptions,
  type TrainState,
} from '../../src/train/state.js';
import {createStepRunner, type RunnerOptions} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {
  crashAfter,
  DENSE,
  exactLines,
  experts,
  FRESH,
  MOE,
  PLAIN_STEP,
  ROUTED,
  type RunChanges,
  ratesAt,
  SEED,
  SEQUENCE,
  tempFolder,
  tiny,
  tinyRun,
  validationLoss,
  writeModel,
} from './support.js';

const finetune = (input: object): FinetuneOptions => finetuneSchema.parse(input);
const LORA = finetune({kind: 'lora', rank: 4, targets: ['attention', 'experts', 'shared'], train: ['routers']});
const rows = (seed: number): ShardRows => ({
  tokens: integers([4 * (SEQUENCE + 1)], 274, seed).values as Int32Array,
});

/** Gives a law a fresh model in training, and where it was loaded from. */
async function withState(
  architecture: Architecture,
  options: Partial<StateOptions>,
  law: (state: TrainState, path: string) => Promise<void>,
): Promise<void> {
  const path = await writeModel(join(await tempFolder(), 'model'), architecture);
  await expectNoLeak(async () => {
    const model = await loadModel(path);
    const state = await createTrainState(model, {...FRESH, ...options});
    await law(state, path);
    disposeTrainState(state);
    model.dispose();
  });
}

async function steps(state: TrainState, count: number, options: Partial<RunnerOptions> = {}): Promise<number[]> {
  const runner = createStepRunner(state, {...PLAIN_STEP, ...options});
  const losses: number[] = [];
  for (let t = 1; t <= count; t++) {
    losses.push((await runner.run([rows(1)], ratesAt(0.01, t), {...SEED, step: t})).loss);
  }
  runner.dispose();
  return losses;
}

async function valuesByPath(state: TrainState): Promise<Map<string, Float32Array>> {
  const specs = leavesOf(parameterSpecs(state.architecture));
  const values = new Map<string, Float32Array>();
  for (const [i, variable] of leavesOf(state.parameters).entries()) {
    values.set(specs[i]!.path, (await readVariable(variable)).slice());
  }
  return values;
}

/** Paths of the parameters that a few steps changed. */
async function changedBy(state: TrainState): Promise<string[]> {
  const before = await valuesByPath(state);
  await steps(state, 2);
  const after = await valuesByPath(state);
  return [...before.keys()].filter((path) => String(before.get(path)) !== String(after.get(path)));
}

async function lossOf(model: Parameters<typeof createLossMeter>[0]): Promise<number> {
  const meter = createLossMeter(model, SEQUENCE, 'float32');
  const {loss} = await meter.measure(
    (async function* () {
      yield await Promise.resolve(rows(2));
    })(),
  );
  meter.dispose();
  return loss;
}

describe('parts', () => {
  onEngine('wasm', 'are all that training changes', () =>
    withState(ROUTED, {finetune: finetune({kind: 'parts', train: ['routers', 'norms']})}, async (state) => {
      const specs = leavesOf(parameterSpecs(ROUTED));
      const named = specs.filter((spec) => ['routers', 'norms'].includes(partOf(spec))).map(({path}) => path);
      expect(await changedBy(state)).toEqual(named);
      expect(state.trained.map(({path}) => path)).toEqual(named);
    }),
  );

  onEngine('wasm', 'count the gate of a shared expert to the routers', () => {
    const gated = tiny([{...experts(8, 2), sharedGate: true}]);
    return withState(gated, {finetune: finetune({kind: 'parts', train: ['routers']})}, async (state) => {
      expect(await changedBy(state)).toEqual(['layers.0.ffn.router', 'layers.0.ffn.sharedGate']);
    });
  });

  onEngine('wasm', 'get the update that they have when all is trained', () =>
    withState(ROUTED, {finetune: finetune({kind: 'parts', train: ['experts']})}, async (some) => {
      await steps(some, 1);
      const received = await valuesByPath(some);
      await withState(ROUTED, {}, async (all) => {
        await steps(all, 1);
        const expected = await valuesByPath(all);
        for (const {path} of some.trained) {
          expect(received.get(path)!, path).toBeAllClose(expected.get(path)!, {rtol: 0, atol: 1e-4});
        }
      });
    }),
  );
});

describe('low-rank terms', () => {
  onEngine('wasm', 'begin at nothing, and leave the matrices beside them as they are', () =>
    withState(ROUTED, {finetune: LORA}, async (state) => {
      const before = await lossOf({architecture: ROUTED, parameters: state.parameters});
      expect(await lossOf(state)).toBe(before);
      const changed = await changedBy(state);
      expect(changed).toEqual(['layers.0.ffn.router']);
      expect(await lossOf(state)).not.toBe(before);
      const factors = state.trained.filter(({path}) => /\.[ab]$/.test(path));
      expect(factors).toHaveLength(2 * state.adapters.size);
      expect([...state.adapters.keys()].filter((path) => path.includes('experts'))).toHaveLength(3);
    }),
  );

  onEngine('wasm', 'lower the loss', () =>
    withState(ROUTED, {finetune: LORA}, async (state) => {
      const losses = await steps(state, 8);
      expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.05);
    }),
  );

  onEngine('tensorflow-compiled', 'of full rank make the step that training the matrices makes', () =>
    withState(
      ROUTED,
      {
        finetune: finetune({kind: 'lora', rank: 32, alpha: 32, targets: ['attention']}),
        stored: (name) => Promise.resolve(/(q|k|v|o)\.a$/.test(name) ? identity(32) : null),
      },
      async (state) => {
        const optimizer = {kind: 'adamw', betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0} as const;
        await steps(state, 1, {optimizer});
        await withState(ROUTED, {finetune: finetune({kind: 'parts', train: ['attention']})}, async (whole) => {
          const before = await valuesByPath(whole);
          await steps(whole, 1, {optimizer});
          const after = await valuesByPath(whole);
          for (const [path, {b}] of state.adapters) {
            const moved = after.get(path)!.map((value, i) => value - before.get(path)![i]!);
            expect(await readVariable(b), path).toBeAllClose(moved, {rtol: 0, atol: 1e-4});
          }
        });
      },
    ),
  );

  onEngine('wasm', 'are of every expert its own: those without a token stay at nothing', () =>
    withState(ROUTED, {finetune: finetune({kind: 'lora', targets: ['experts']})}, async (state) => {
      const runner = createStepRunner(state, PLAIN_STEP);
      const few = {
        tokens: rows(1)
          .tokens.slice(0, SEQUENCE + 1)
          .fill(7),
      };
      const {load} = await runner.run([few], ratesAt(0.01, 1), SEED);
      runner.dispose();
      const b = await readVariable(state.adapters.get('layers.0.ffn.experts.gate')!.b);
      const size = b.length / 8;
      const moved = load[0]!.map((_, e) => b.subarray(e * size, (e + 1) * size).some((value) => value !== 0));
      expect(moved).toEqual(load[0]!.map((share) => share > 0));
      expect(moved).toContain(false);
    }),
  );

  onEngine('wasm', 'with dropout give another step by another seed, and the same by the same', () =>
    withState(ROUTED, {finetune: LORA}, async (state) => {
      const runner = createStepRunner(state, {...PLAIN_STEP, dropout: 0.5});
      await runner.run([rows(1)], ratesAt(0.05, 1), SEED); // b is nothing until now
      const still = ratesAt(1e-30, 1);
      const lossAt = async (step: number): Promise<number> =>
        (await runner.run([rows(1)], still, {seed: 7, step})).loss;
      const [first, again, other] = [await lossAt(2), await lossAt(2), await lossAt(3)];
      runner.dispose();
      expect(again).toBe(first);
      expect(other).not.toBe(first);
    }),
  );

  onEngine('wasm', 'stand beside embeddings and the head that is tied to them', () =>
    withState(DENSE, {finetune: finetune({kind: 'lora', targets: ['embeddings', 'ffn']})}, async (state) => {
      expect([...state.adapters.keys()]).toContain('embed');
      const losses = await steps(state, 6);
      expect(losses.at(-1)!).toBeLessThan(losses[0]!);
    }),
  );
});

describe('a run with low-rank terms', () => {
  const lora: TrainInput['finetune'] = {kind: 'lora', rank: 4, targets: ['attention', 'experts'], train: ['routers']};
  const changes: RunChanges = {engine: {device: 'wasm'}, train: {steps: 6, checkpoint: {every: 3}, finetune: lora}};

  it('saves the model with them added: it has the loss of the run', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const run = tinyRun(folder, changes);
    const {out} = await train(run);
    const records = await readRunLog(join(out, 'log.jsonl'));
    const factors = 2 * (2 * (32 + 32) * 4 + 2 * (32 + 16) * 4) + 4 * 3 * (32 + 64) * 4; // q, o; k, v; three of each expert
    expect(records[0]).toMatchObject({parameters: {trainable: factors + 32 * 4}});
    const last = records.findLast((record) => record.kind === 'eval')!;
    const merged = checkpointModel((await latestCheckpoint(out))!.path);
    expect(await validationLoss(merged, run)).toBeCloseTo(last.loss!, 5);
    expect(await validationLoss(run.model, run)).not.toBeCloseTo(last.loss!, 2);
  });

  it('goes on from a checkpoint with the same bytes, also where only the terms are kept', async () => {
    for (const merge of [true, false]) {
      const folder = await tempFolder();
      await writeModel(join(folder, 'model'), MOE);
      const train6 = {...changes.train, finetune: {...lora, merge}};
      await train(tinyRun(folder, {...changes, train: train6, out: 'whole'}));
      await train(tinyRun(folder, {...changes, train: train6, out: 'half'}), (event) => {
        if (event.kind === 'step' && event.step === 4) process.emit('SIGTERM', 'SIGTERM');
      });
      const {reason} = await train(tinyRun(folder, {...changes, train: train6, out: 'half', mode: 'resume'}));
      expect(reason).toBe('completed');
      const lines = await exactLines(join(folder, 'half'), ['step', 'eval']);
      expect(lines).toEqual(await exactLines(join(folder, 'whole'), ['step', 'eval']));
      const names = await readdir(join(folder, 'half', 'step-000006'));
      expect(names.sort()).toEqual(['adapter', ...(merge ? ['model'] : []), 'optimizer', 'trainer.json']);
    }
  });
});

describe('merging', () => {
  const lora: TrainInput['finetune'] = {
    kind: 'lora',
    targets: ['attention', 'experts'],
    train: ['norms'],
    merge: false,
  };
  const changes: RunChanges = {engine: {device: 'wasm'}, train: {steps: 4, checkpoint: {every: 2}, finetune: lora}};

  it('makes the model of a run that kept its terms apart', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    await writeFile(join(folder, 'model/downcycle.json'), '{"kind": "told"}');
    const run = tinyRun(folder, changes);
    const {out} = await train(run);
    const merged = join(folder, 'merged');
    const base = join(folder, 'model');
    expect(await mergeAdapter({adapter: out, out: merged})).toEqual({
      ...{base, dtype: 'F32', matrices: 2 * 4 + 3, replaced: 2 * 2 + 1},
    });
    const origin = await readFile(join(merged, 'downcycle.json'), 'utf8');
    expect(JSON.parse(origin)).toEqual({kind: 'told', trained: true});
    const last = (await readRunLog(join(out, 'log.jsonl'))).findLast((record) => record.kind === 'eval')!;
    expect(await validationLoss(merged, run)).toBeCloseTo(last.loss!, 5);
    await expect(mergeAdapter({adapter: out, out: merged})).rejects.toThrow('already exists');
    expect(await mergeAdapter({adapter: out, out: join(folder, 'short'), dtype: 'BF16'})).toMatchObject({
      dtype: 'BF16',
    });
    expect(await validationLoss(join(folder, 'short'), run)).toBeCloseTo(last.loss!, 1);
    expect((await readModelConfig(join(folder, 'short'))).config.torch_dtype).toBe('bfloat16');
    const older = join(out, 'step-000002');
    await mergeAdapter({adapter: older, out: join(folder, 'older')});
    expect(await validationLoss(join(folder, 'older'), run)).not.toBeCloseTo(last.loss!, 5);
    await writeModel(join(folder, 'dense'), DENSE);
    const wrong = {adapter: older, out: join(folder, 'wrong'), base: join(folder, 'dense')};
    await expect(mergeAdapter(wrong)).rejects.toThrow(/layers\.1\.ffn\.experts\..* not there in .*dense/);
    expect(await readdir(folder)).not.toContain('wrong');
  });

  it('takes the newest checkpoint, light or not, and refuses another base', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), MOE);
    const light: RunChanges = {...changes, train: {...changes.train, checkpoint: {every: 2, optimizer: false}}};
    await expect(train(tinyRun(folder, light), crashAfter(3))).rejects.toThrow('crash');
    const {matrices} = await mergeAdapter({adapter: join(folder, 'run'), out: join(folder, 'merged')});
    expect(matrices).toBeGreaterThan(0);
    await rm(join(folder, 'model'), {recursive: true});
    await writeModel(join(folder, 'model'), MOE, (_, values) => values.map((value) => 2 * value));
    await expect(mergeAdapter({adapter: join(folder, 'run'), out: join(folder, 'other')})).rejects.toThrow(
      'holds other weights than those that the terms were trained beside',
    );
    await rm(join(folder, 'model'), {recursive: true});
    await expect(mergeAdapter({adapter: join(folder, 'run'), out: join(folder, 'other')})).rejects.toMatchObject({
      message: `${join(folder, 'model')} is not there: the run recorded it as the model that it trained from.`,
      hint: 'Say where that model is with --base.',
    });
    await writeFile(join(folder, 'run/step-000002/trainer.json'), '');
    await expect(mergeAdapter({adapter: join(folder, 'run'), out: join(folder, 'other')})).rejects.toMatchObject({
      message: expect.stringContaining('step-000002/trainer.json:1:1: ') as string,
      hint: 'Give the folder of that checkpoint instead of the run.',
    });
    const named = {adapter: join(folder, 'run/step-000002'), base: join(folder, 'model')};
    await writeModel(named.base, MOE);
    expect(await mergeAdapter({...named, out: join(folder, 'named')})).toMatchObject({matrices});
  });

  it('says what a folder is that has none', async () => {
    const folder = await tempFolder();
    await writeModel(join(folder, 'model'), DENSE);
    const {out} = await train(tinyRun(folder, {engine: {device: 'wasm'}, train: {steps: 1}}));
    const into = join(folder, 'merged');
    const cwd = process.cwd();
    for (const [at, adapter, checkpoint] of [
      [cwd, out, join(out, 'step-000001')],
      [join(out, 'step-000001'), '.', '.'],
    ] as const) {
      process.chdir(at);
      const merging = mergeAdapter({adapter, out: into}).finally(() => process.chdir(cwd));
      await expect(merging).rejects.toMatchObject({
        message: `${checkpoint} holds no low-rank terms: the run trained weights themselves.`,
        hint: `There is nothing to merge: ${join(checkpoint, 'model')} is the model.`,
      });
    }
    await expect(mergeAdapter({adapter: join(folder, 'model'), out: into})).rejects.toThrow('it has no adapter.json');
    await expect(mergeAdapter({adapter: join(folder, 'gone'), out: into})).rejects.toThrow('is not there');
    const file = join(folder, 'model/config.json');
    await expect(mergeAdapter({adapter: file, out: into})).rejects.toThrow(`${file} is a file; the folder of a run`);
    await expect(readArchitecture(file)).rejects.toThrow(`${file}: this is not a GGUF file`);
  });
});

describe('what trains', () => {
  it.each([
    [DENSE, {kind: 'parts', train: ['experts']}, 'train.finetune.train: the model has no experts.'],
    [DENSE, {kind: 'lora', targets: ['attention', 'shared']}, 'train.finetune.targets: the model has no shared.'],
    [MOE, {kind: 'lora', targets: ['norms']}, 'train.finetune.targets: norms have no matrix'],
    [DENSE, {kind: 'lora', targets: ['attention'], rank: 33}, 'of its targets have a rank of 32 at most'],
    [MOE, {kind: 'lora', targets: ['experts'], train: ['experts']}, 'experts is among targets and train'],
  ])('is refused where the model has it not, or twice', (architecture, input, message) => {
    expect(() => selectParameters(architecture, finetune(input))).toThrow(message);
  });
});

function identity(size: number): Float32Array {
  return Float32Array.from({length: size * size}, (_, at) => (at % (size + 1) === 0 ? 1 : 0));
}
