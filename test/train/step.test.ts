import {describe, expect, vi} from 'vitest';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import type {Architecture} from '../../src/model/architecture.js';
import {batchTensor} from '../../src/model/batch.js';
import {loadModel} from '../../src/model/model.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {createTrainState, disposeTrainState, readVariable, type TrainState} from '../../src/train/state.js';
import {compileStep} from '../../src/train/step.js';
import {createStepRunner, type RunnerOptions} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import * as tf from '../support/tfjs.js';
import {referenceAdamW} from './reference.js';
import {experts, FRESH, PLAIN_STEP, ratesAt, SEED, SEQUENCE, tempFolder, tiny, writeModel} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling and new processes, on a machine that may be busy

const OPTIONS: RunnerOptions = {...PLAIN_STEP, clip: 0.5};
const RATES = ratesAt(0.01, 3);
const ONE_LAYER = tiny([{kind: 'dense', width: 64}]);
/** Eight experts, one a token: with a router of zeros all tokens take the first. */
const COLLAPSED = tiny([experts(8, 1)]);

/** The same with four experts inside each, of which a token uses one. */
const NESTED = tiny([{...experts(8, 1), inner: {experts: 4, topK: 1, expertWidth: 16, weight: 'score'}}]);

interface StateOptions {
  readonly accumulates?: boolean;
  readonly change?: (spec: ParameterSpec, values: Float32Array) => Float32Array;
}

/** Gives a law a fresh model with its moments on the engine in use; nothing of it may be left behind. */
async function withState(
  architecture: Architecture,
  {accumulates = false, change}: StateOptions,
  law: (state: TrainState) => Promise<void>,
): Promise<void> {
  const path = `${await tempFolder()}/model`;
  await writeModel(path, architecture, change);
  await expectNoLeak(async () => {
    const model = await loadModel(path);
    const state = await createTrainState(model, {...FRESH, accumulates});
    await law(state);
    disposeTrainState(state);
    model.dispose();
  });
}

const collapse = ({role}: ParameterSpec, values: Float32Array): Float32Array =>
  role === 'router' ? values.fill(0) : values;

const rows = (B: number, seed: number): ShardRows => ({
  tokens: integers([B * (SEQUENCE + 1)], 274, seed).values as Int32Array,
});

/** Weights and both moments. */
async function numbersOf(state: TrainState): Promise<Float32Array[]> {
  const numbers: Float32Array[] = [];
  const kept = ['first', 'second'].flatMap((name) => state.trained.map(({slots}) => slots.get(name)!));
  for (const variable of [...leavesOf(state.parameters), ...kept]) numbers.push((await readVariable(variable)).slice());
  return numbers;
}

/** Weights and moments after two ways to the same step. */
function expectSameNumbers(
  received: readonly Float32Array[],
  expected: readonly Float32Array[],
  architecture: Architecture,
): void {
  const moments = leavesOf(parameterSpecs(architecture)).length;
  for (const [i, values] of expected.entries()) {
    // A weight whose gradient is next to nothing moves by the rounding of it: 1% of the learning rate.
    const tolerance = i < moments ? {rtol: 0, atol: 1e-4} : {rtol: 1e-4, atol: 1e-8};
    expect(received[i]!).toBeAllClose(values, tolerance);
  }
}

/** Runs one step with a new runner and returns what it told and what the model has become. */
async function stepOnce(state: TrainState, options: RunnerOptions, batches: readonly ShardRows[]) {
  const runner = createStepRunner(state, options);
  const result = await runner.run(batches, RATES, SEED);
  runner.dispose();
  return {result, numbers: await numbersOf(state)};
}

/** Compiling takes long, so TensorFlow checks the two laws that its guarded assignments could break. */
const BOTH = ['wasm', 'tensorflow-compiled'] as const;

describe('a step', () => {
  onEngine('wasm', 'moves every parameter by float64 AdamW of its clipped gradient; norms do not decay', () =>
    withState(ONE_LAYER, {accumulates: true}, async (state) => {
      const before = await numbersOf(state);
      const {gradients, norm} = await gradientsOf(state, rows(2, 1));
      expect(norm, 'a norm that is clipped').toBeGreaterThan(OPTIONS.clip);
      const {numbers, result} = await stepOnce(
        {...state, trained: state.trained.map((one) => ({...one, sum: null}))},
        OPTIONS,
        [rows(2, 1)],
      );
      expect(result.gradNorm).toBeCloseTo(norm, 4);
      const specs = leavesOf(parameterSpecs(ONE_LAYER));
      for (const [i, {path, role}] of specs.entries()) {
        const zeros = new Array<number>(before[i]!.length).fill(0);
        const clipped = gradients[i]!.map((g) => (g * OPTIONS.clip) / (norm + 1e-6));
        const weightDecay = role === 'norm' ? 0 : 0.1;
        const {betas, eps} = {betas: [0.9, 0.95] as const, eps: 1e-8};
        const start = {value: [...before[i]!], first: zeros, second: zeros};
        const expected = referenceAdamW(start, clipped, 3, {learningRate: 0.01, weightDecay, betas, eps});
        expect(numbers[i]!, path).toBeAllClose(expected.value, {rtol: 1e-6, atol: 2e-6});
      }
    }),
  );

  for (const engine of BOTH) {
    onEngine(engine, 'takes nothing from a row without any label, and no NaN from a batch of such rows', () =>
      withState(ONE_LAYER, {}, async (state) => {
        const {tokens} = rows(2, 1);
        const masked = (isLearnt: (i: number) => boolean): ShardRows => ({
          tokens,
          mask: tokens.map((_, i) => Number(isLearnt(i))),
        });
        const runner = createStepRunner(state, OPTIONS);
        const still = {...RATES, lossLimit: -1}; // a step that is too high changes nothing: both see the same weights
        const half = await runner.run([masked((i) => i <= SEQUENCE)], still, SEED);
        const alone = createStepRunner(state, OPTIONS);
        const first = await alone.run([{tokens: tokens.slice(0, SEQUENCE + 1)}], still, SEED);
        expect(half.loss).toBeCloseTo(first.loss, 5);
        expect(half.gradNorm).toBeCloseTo(first.gradNorm, 4);
        const none = await runner.run([masked(() => false)], RATES, SEED);
        expect([none.loss, none.gradNorm]).toEqual([0, 0]);
        for (const values of await numbersOf(state)) expect(values.every(Number.isFinite)).toBe(true);
        runner.dispose();
        alone.dispose();
      }),
    );
  }

  for (const engine of BOTH) {
    onEngine(engine, 'of two accumulated micro-batches equals one of both together', () =>
      withState(ONE_LAYER, {accumulates: true}, async (state) => {
        const [a, b] = [rows(2, 1), rows(2, 2)] as const;
        const parts = await stepOnce(state, OPTIONS, [a, b]);
        const sums = await Promise.all(state.trained.map(({sum}) => readVariable(sum!)));
        expect(
          sums.every((sum) => sum.every((value) => value === 0)),
          'sums are empty again',
        ).toBe(true);
        await withState(ONE_LAYER, {}, async (other) => {
          const both = {tokens: Int32Array.from([...a.tokens, ...b.tokens])};
          const whole = await stepOnce(other, OPTIONS, [both]);
          expect(parts.result.loss).toBeCloseTo(whole.result.loss, 5);
          expect(parts.result.gradNorm).toBeCloseTo(whole.result.gradNorm, 5);
          expectSameNumbers(parts.numbers, whole.numbers, ONE_LAYER);
        });
      }),
    );

    onEngine(engine, 'counts every label of two micro-batches the same, however many each has', () =>
      withState(ONE_LAYER, {accumulates: true}, async (state) => {
        const mask = (count: number): Int32Array =>
          Int32Array.from({length: 2 * (SEQUENCE + 1)}, (_, i) => (i % (SEQUENCE + 1) <= count ? 1 : 0));
        const [a, b] = [
          {...rows(2, 1), mask: mask(1)},
          {...rows(2, 2), mask: mask(SEQUENCE)},
        ] as const;
        const plain = {...OPTIONS, balance: {kind: 'none', zLoss: 0}} as const;
        const parts = await stepOnce(state, plain, [a, b]);
        await withState(ONE_LAYER, {}, async (other) => {
          const both = {
            tokens: Int32Array.from([...a.tokens, ...b.tokens]),
            mask: Int32Array.from([...a.mask, ...b.mask]),
          };
          const whole = await stepOnce(other, plain, [both]);
          expect(parts.result.loss).toBeCloseTo(whole.result.loss, 5);
          expect(parts.result.gradNorm).toBeCloseTo(whole.result.gradNorm, 5);
          expectSameNumbers(parts.numbers, whole.numbers, ONE_LAYER);
        });
      }),
    );

    onEngine(
      engine,
      'loses no token when all of them choose one expert: it equals one where each has room for all',
      () =>
        withState(COLLAPSED, {change: collapse}, async (state) => {
          const dropless = await stepOnce(state, OPTIONS, [rows(2, 1)]);
          expect(dropless.result.load).toEqual([[1, 0, 0, 0, 0, 0, 0, 0]]);
          expect(dropless.result.overflow).toBe(0);
          await withState(COLLAPSED, {change: collapse}, async (other) => {
            const ample = await stepOnce(other, {...OPTIONS, capacity: {factor: 8}}, [rows(2, 1)]);
            expect(ample.result.overflow).toBe(0);
            expect(dropless.result.loss).toBeCloseTo(ample.result.loss, 6);
            expect(dropless.result.gradNorm).toBeCloseTo(ample.result.gradNorm, 5);
            expectSameNumbers(dropless.numbers, ample.numbers, COLLAPSED);
          });
        }),
    );
  }
});

describe('a fixed room for experts', () => {
  onEngine('wasm', 'drops the rows beyond it, says how many, and trains', () =>
    withState(COLLAPSED, {change: collapse}, async (state) => {
      const before = await numbersOf(state);
      const {result, numbers} = await stepOnce(state, {...OPTIONS, capacity: {factor: 2}}, [rows(2, 1)]);
      expect(result.overflow, '64 rows wanted, room for 16').toBe(48);
      expect(numbers).not.toEqual(before);
      await withState(COLLAPSED, {change: collapse}, async (other) => {
        const dropless = await stepOnce(other, OPTIONS, [rows(2, 1)]);
        expect(numbers, 'dropped rows are missing').not.toEqual(dropless.numbers);
      });
    }),
  );

  onEngine('wasm', 'counts rows of experts inside that it drops, and trains', () =>
    withState(NESTED, {change: collapse}, async (state) => {
      const before = await numbersOf(state);
      const {result, numbers} = await stepOnce(state, {...OPTIONS, capacity: {factor: 8}}, [rows(2, 1)]);
      expect(result.overflow, '64 rows wanted inside one expert, room for 16').toBe(48);
      expect(result.load).toEqual([[1, 0, 0, 0, 0, 0, 0, 0]]);
      expect(numbers).not.toEqual(before);
    }),
  );

  onEngine('wasm', 'adds up what it dropped in all micro-batches', () =>
    withState(COLLAPSED, {change: collapse, accumulates: true}, async (state) => {
      const options = {...OPTIONS, capacity: {factor: 2}};
      const {result} = await stepOnce(state, options, [rows(2, 1), rows(2, 2)]);
      expect(result.overflow).toBe(96);
      expect(result.load).toEqual([[1, 0, 0, 0, 0, 0, 0, 0]]);
    }),
  );
});

describe('a step whose gradient is not finite', () => {
  const poison = ({path}: ParameterSpec, values: Float32Array): Float32Array =>
    path === 'norm' ? values.fill(3e38) : values;

  onEngine('wasm', 'changes nothing and says so in its norm', () =>
    withState(ONE_LAYER, {change: poison}, async (state) => {
      const before = await numbersOf(state);
      const {result, numbers} = await stepOnce(state, OPTIONS, [rows(2, 1)]);
      expect(Number.isFinite(result.gradNorm)).toBe(false);
      expect(numbers).toEqual(before);
    }),
  );
});

/** Gradients of the mean loss, through the sums of accumulation, which are left empty. */
async function gradientsOf(state: TrainState, batch: ShardRows): Promise<{gradients: number[][]; norm: number}> {
  const {accumulate} = compileStep(state, OPTIONS);
  const [batchTensors, seed_2, share] = [
    batchTensor(batch, SEQUENCE),
    tf.tensor1d([1, 2], 'int32'),
    tf.tensor1d([1, 1]),
  ] as const;
  const report = await accumulate(batchTensors, seed_2, share);
  const gradients: number[][] = [];
  for (const {sum} of state.trained) gradients.push([...(await readVariable(sum!))]);
  tf.dispose([batchTensors, seed_2, share, report.figures, report.loads]);
  accumulate.dispose();
  return {gradients, norm: Math.sqrt(gradients.flat().reduce((total, g) => total + g * g, 0))};
}
