import * as tf from '@tensorflow/tfjs';
import {describe, expect, vi} from 'vitest';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import type {Architecture} from '../../src/model/architecture.js';
import {batchTensor} from '../../src/model/batch.js';
import {CAPACITY_BUCKETS} from '../../src/model/capacity.js';
import {loadModel} from '../../src/model/model.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../../src/model/parameters.js';
import {stepRates} from '../../src/train/optimizer.js';
import {createTrainState, disposeTrainState, readVariable} from '../../src/train/state.js';
import {compileStep, ratesTensor, type TrainState} from '../../src/train/step.js';
import {createStepRunner, type RunnerOptions} from '../../src/train/step-runner.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {integers} from '../support/host.js';
import {referenceAdamW} from './reference.js';
import {experts, SEQUENCE, tempFolder, tiny, writeModel} from './support.js';

vi.setConfig({testTimeout: 240_000, hookTimeout: 240_000}); // compiling and new processes, on a machine that may be busy

const OPTIONS: RunnerOptions = {
  optimizer: {betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1},
  clip: 0.5,
  balanceWeight: 0,
  zWeight: 0,
  precision: 'float32',
  dropsRows: false,
  fixedFactor: null,
  sequenceLength: SEQUENCE,
  tokens: 2 * SEQUENCE,
  capacity: null,
};
const RATES = stepRates(0.01, 3, OPTIONS.optimizer.betas);
const ONE_LAYER = tiny([{kind: 'dense', width: 64}]);
/** Eight experts, one a token: with a router of zeros all tokens take the first. */
const COLLAPSED = tiny([experts(8, 1)]);
const ROUTED = tiny([experts(16, 2)]);

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
    const state = await createTrainState(model, {accumulates, moments: () => Promise.resolve(null)});
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
  for (const variable of [...leavesOf(state.parameters), ...state.first, ...state.second]) {
    numbers.push((await readVariable(variable)).slice());
  }
  return numbers;
}

/** Runs one step with a new runner and returns what it told and what the model has become. */
async function stepOnce(state: TrainState, options: RunnerOptions, batches: readonly ShardRows[]) {
  const runner = createStepRunner(state, options);
  const result = await runner.run(batches, RATES, 1);
  const capacity = runner.capacity();
  runner.dispose();
  return {result, capacity, numbers: await numbersOf(state)};
}

/** Compiling takes long, so TensorFlow checks the two laws that its guarded assignments could break. */
const BOTH = ['wasm', 'tensorflow-compiled'] as const;

describe('a step', () => {
  onEngine('wasm', 'moves every parameter by float64 AdamW of its clipped gradient; norms do not decay', () =>
    withState(ONE_LAYER, {accumulates: true}, async (state) => {
      const before = await numbersOf(state);
      const {gradients, norm} = await gradientsOf(state, rows(2, 1));
      expect(norm, 'a norm that is clipped').toBeGreaterThan(OPTIONS.clip);
      const {numbers, result} = await stepOnce({...state, sums: []}, OPTIONS, [rows(2, 1)]);
      expect(result.gradNorm).toBeCloseTo(norm, 4);
      const specs = leavesOf(parameterSpecs(ONE_LAYER));
      for (const [i, {path, role}] of specs.entries()) {
        const zeros = new Array<number>(before[i]!.length).fill(0);
        const clipped = gradients[i]!.map((g) => (g * OPTIONS.clip) / (norm + 1e-6));
        const weightDecay = role === 'norm' ? 0 : 0.1;
        const {betas, eps} = OPTIONS.optimizer;
        const start = {value: [...before[i]!], first: zeros, second: zeros};
        const expected = referenceAdamW(start, clipped, 3, {learningRate: 0.01, weightDecay, betas, eps});
        expect(numbers[i]!, path).toBeAllClose(expected.value, {rtol: 1e-6, atol: 2e-6});
      }
    }),
  );

  onEngine('wasm', 'that overflows changes nothing and tells how many rows each expert wanted', () =>
    withState(COLLAPSED, {change: collapse}, async (state) => {
      const before = await numbersOf(state);
      const {step} = compileStep(state, OPTIONS, 1.25);
      const [batch, rates] = [batchTensor(rows(2, 1), SEQUENCE), ratesTensor(RATES)] as const;
      const report = await step(batch, rates);
      expect([...(await report.loads.data())]).toEqual([64, 0, 0, 0, 0, 0, 0, 0]);
      expect(await numbersOf(state)).toEqual(before);
      tf.dispose([batch, rates, report.loads, report.figures]);
      step.dispose();
    }),
  );

  for (const engine of BOTH) {
    onEngine(engine, 'of two accumulated micro-batches equals one of both together', () =>
      withState(ONE_LAYER, {accumulates: true}, async (state) => {
        const [a, b] = [rows(2, 1), rows(2, 2)] as const;
        const parts = await stepOnce(state, OPTIONS, [a, b]);
        const sums = await Promise.all(state.sums.map(readVariable));
        expect(
          sums.every((sum) => sum.every((value) => value === 0)),
          'sums are empty again',
        ).toBe(true);
        await withState(ONE_LAYER, {}, async (other) => {
          const both = {tokens: Int32Array.from([...a.tokens, ...b.tokens])};
          const whole = await stepOnce(other, OPTIONS, [both]);
          expect(parts.result.loss).toBeCloseTo(whole.result.loss, 5);
          expect(parts.result.gradNorm).toBeCloseTo(whole.result.gradNorm, 5);
          const moments = leavesOf(parameterSpecs(ONE_LAYER)).length;
          for (const [i, values] of whole.numbers.entries()) {
            // A weight whose gradient is next to nothing moves by the rounding of it: 1% of the learning rate.
            const tolerance = i < moments ? {rtol: 0, atol: 1e-4} : {rtol: 1e-4, atol: 1e-8};
            expect(parts.numbers[i]!).toBeAllClose(values, tolerance);
          }
        });
      }),
    );

    onEngine(engine, 'that overflows is run again with more room, to what ample room gives', () =>
      withState(COLLAPSED, {change: collapse}, async (state) => {
        const tight = await stepOnce(state, OPTIONS, [rows(2, 1)]);
        expect(tight.result.overflow, '64 rows wanted, room for 16').toBe(48);
        expect(tight.result.load).toEqual([[1, 0, 0, 0, 0, 0, 0, 0]]);
        expect(tight.capacity, 'eight even shares: every expert sees every token').toEqual({factor: null, peak: 8});
        await withState(COLLAPSED, {change: collapse}, async (other) => {
          const ample = await stepOnce(other, {...OPTIONS, capacity: {factor: null, peak: 0}}, [rows(2, 1)]);
          expect(ample.result.overflow).toBe(0);
          expect(tight.numbers).toEqual(ample.numbers);
          expect(tight.result).toEqual({...ample.result, overflow: 48});
        });
      }),
    );
  }
});

describe('room for experts', () => {
  onEngine('wasm', 'that overflows in one micro-batch adds that one once', () =>
    withState(COLLAPSED, {change: collapse, accumulates: true}, async (state) => {
      const tight = await stepOnce(state, OPTIONS, [rows(2, 1), rows(2, 2)]);
      expect(tight.result.overflow, 'the second micro-batch has room already').toBe(48);
      await withState(COLLAPSED, {change: collapse, accumulates: true}, async (other) => {
        const ample = await stepOnce(other, {...OPTIONS, capacity: {factor: null, peak: 0}}, [rows(2, 1), rows(2, 2)]);
        expect(tight.numbers).toEqual(ample.numbers);
      });
    }),
  );

  onEngine('wasm', 'that is fixed drops the rows beyond it, says how many, and trains', () =>
    withState(COLLAPSED, {change: collapse}, async (state) => {
      const before = await numbersOf(state);
      const {result, numbers, capacity} = await stepOnce(state, {...OPTIONS, dropsRows: true, fixedFactor: 2}, [
        rows(2, 1),
      ]);
      expect(result.overflow).toBe(48);
      expect(capacity.factor).toBe(2);
      expect(numbers).not.toEqual(before);
      await withState(COLLAPSED, {change: collapse}, async (other) => {
        const dropless = await stepOnce(other, OPTIONS, [rows(2, 1)]);
        expect(numbers, 'dropped rows are missing').not.toEqual(dropless.numbers);
      });
    }),
  );

  onEngine('wasm', 'is taken back every 50 steps to what the largest need since asks for, and a tenth', () =>
    withState(ROUTED, {}, async (state) => {
      const runner = createStepRunner(state, {...OPTIONS, capacity: {factor: null, peak: 1.3}});
      await runner.run([rows(2, 1)], RATES, 49);
      const {factor, peak} = runner.capacity();
      expect(factor, 'not yet').toBeNull();
      expect(peak).toBeGreaterThanOrEqual(1.3);
      const {load} = await runner.run([rows(2, 1)], RATES, 50);
      const largest = Math.max(peak, ...load.flat().map((share) => share * 16));
      expect(runner.capacity()).toEqual({factor: smallest(largest * 1.1), peak: 0});
      runner.dispose();
    }),
  );

  onEngine('wasm', 'can be made beforehand for a need that is known, unless it is fixed', () =>
    withState(ROUTED, {}, async (state) => {
      const reserved = (options: RunnerOptions): number | null => {
        const runner = createStepRunner(state, options);
        runner.reserve(1.3);
        runner.dispose();
        return runner.capacity().factor;
      };
      expect(reserved(OPTIONS)).toBe(smallest(1.3 * 1.1));
      expect(reserved({...OPTIONS, capacity: {factor: 3, peak: 0}}), 'room is never taken').toBe(3);
      expect(reserved({...OPTIONS, dropsRows: true, fixedFactor: 1})).toBe(1);
    }),
  );
});

/** The smallest bucket for a need of ROUTED's layer, in even shares of 8 of 64 tokens; rows come in eights. */
function smallest(need: number): number {
  const rowsOf = (bucket: number): number => Math.ceil(bucket) * 8;
  return CAPACITY_BUCKETS.find((bucket) => rowsOf(bucket) >= Math.min(need * 8, 32)) ?? Number.NaN;
}

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
  const {accumulate} = compileStep(state, OPTIONS, 1.25);
  const [batchTensors, share] = [batchTensor(batch, SEQUENCE), tf.scalar(1)] as const;
  const report = await accumulate(batchTensors, share);
  const gradients: number[][] = [];
  for (const sum of state.sums) gradients.push([...(await readVariable(sum))]);
  tf.dispose([batchTensors, share, report.figures, report.loads]);
  accumulate.dispose();
  return {gradients, norm: Math.sqrt(gradients.flat().reduce((total, g) => total + g * g, 0))};
}
