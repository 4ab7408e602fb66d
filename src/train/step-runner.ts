import * as tf from '@tensorflow/tfjs';
import type {Compiled} from '../engine/compile.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import type {Architecture, FfnLayout} from '../model/architecture.js';
import {batchTensor} from '../model/batch.js';
import {bucketFor, CAPACITY_BUCKETS, expertRows} from '../model/capacity.js';
import type {StepRates} from './optimizer.js';
import {
  compileApply,
  compileStep,
  ratesTensor,
  type StepFunctions,
  type StepOptions,
  type StepReport,
  type TrainState,
} from './step.js';

/** What one optimizer step gave. */
export interface StepResult {
  readonly loss: number;
  readonly balance: number;
  readonly z: number;
  readonly gradNorm: number;
  /** By MoE layer, the share of routed rows each expert got. */
  readonly load: readonly (readonly number[])[];
  /** Rows that did not fit their bucket at the first attempt; they were dropped if the room is fixed. */
  readonly overflow: number;
}

/** Room for expert rows: where it stands, and the largest need since it was last reviewed. Part of a checkpoint. */
export interface CapacityState {
  readonly factor: number | null;
  readonly peak: number;
}

/** Runs optimizer steps, with as much room for expert rows as they need. */
export interface StepRunner {
  /** One optimizer step over micro-batches of equal size. */
  run(batches: readonly ShardRows[], rates: StepRates, step: number): Promise<StepResult>;
  /** Makes room for a need known beforehand, in even shares of the fullest layer. */
  reserve(need: number): void;
  capacity(): CapacityState;
  dispose(): void;
}

/** Steps between two looks at whether less room would do. */
const REVIEW_EVERY = 50;
/** Spare room that a smaller bucket must have left. */
const MARGIN = 1.1;

type MoeLayout = Extract<FfnLayout, {kind: 'moe'}>;

/** What a runner needs besides the state it trains. */
export interface RunnerOptions extends StepOptions {
  readonly sequenceLength: number;
  /** Tokens of a micro-batch. */
  readonly tokens: number;
  /** Fixed room that drops what does not fit, or null to never drop. */
  readonly fixedFactor: number | null;
  /** Where a resumed run stood. */
  readonly capacity: CapacityState | null;
}

/** Creates a runner; functions are compiled as they are needed and kept. */
export function createStepRunner(state: TrainState, options: RunnerOptions): StepRunner {
  const functions = new Map<number, StepFunctions>();
  const apply = state.sums.length > 0 ? compileApply(state, options) : null;
  const layouts = moeLayouts(state.architecture);
  let factor = options.fixedFactor ?? fromState(options.capacity) ?? CAPACITY_BUCKETS[0];
  let peak = options.capacity?.peak ?? 0;
  const functionsOf = (bucket: number): StepFunctions => {
    const known = functions.get(bucket) ?? compileStep(state, options, bucket);
    functions.set(bucket, known);
    return known;
  };
  const attempt = async (batch: tf.Tensor3D, call: (fns: StepFunctions) => Promise<StepReport>): Promise<Attempt> => {
    const tokens = (batch.shape[1] ?? 0) * (batch.shape[2] ?? 0);
    let overflow = 0;
    for (;;) {
      const {figures, loads} = await readReport(await call(functionsOf(factor)));
      const need = evenShares(loads, layouts, tokens);
      const missing = missingRows(loads, layouts, tokens, factor);
      overflow = overflow || missing;
      // More room would not help a loss that is not finite, nor is it wanted where rows may be dropped.
      if (missing === 0 || options.dropsRows || !Number.isFinite(figures[0])) {
        peak = Math.max(peak, need);
        return {figures, loads, overflow};
      }
      factor = bucketOf(need, layouts, tokens);
    }
  };
  return {
    run: async (batches, rates, step) => {
      const result = await runStep(batches, rates, {attempt, apply, options});
      if (options.fixedFactor === null && step % REVIEW_EVERY === 0) {
        factor = Math.min(factor, bucketOf(peak * MARGIN, layouts, options.tokens));
        peak = 0;
      }
      return {...result, load: byLayer(result.loads, layouts)};
    },
    reserve: (need) => {
      if (options.fixedFactor === null) factor = Math.max(factor, bucketOf(need * MARGIN, layouts, options.tokens));
    },
    capacity: () => ({factor: Number.isFinite(factor) ? factor : null, peak}),
    dispose: () => {
      for (const fns of functions.values()) {
        fns.step.dispose();
        fns.accumulate.dispose();
      }
      apply?.dispose();
    },
  };
}

interface Attempt {
  readonly figures: Float32Array;
  readonly loads: Int32Array;
  readonly overflow: number;
}

interface StepParts {
  readonly attempt: (batch: tf.Tensor3D, call: (fns: StepFunctions) => Promise<StepReport>) => Promise<Attempt>;
  readonly apply: Compiled<[tf.Tensor1D], {norm: tf.Tensor}> | null;
  readonly options: RunnerOptions;
}

type Raw = Omit<StepResult, 'load'> & {readonly loads: Int32Array};

async function runStep(batches: readonly ShardRows[], rates: StepRates, parts: StepParts): Promise<Raw> {
  const {attempt, apply, options} = parts;
  const rates_3 = ratesTensor(rates);
  try {
    if (!apply) {
      const [rows] = batches;
      if (!rows) throw new Error('a step needs a batch');
      const one = await withBatch(rows, options, (batch) => attempt(batch, (fns) => fns.step(batch, rates_3)));
      return summary([one], one.figures[3] ?? Number.NaN);
    }
    const attempts: Attempt[] = [];
    for (const rows of batches) attempts.push(await accumulate(rows, 1 / batches.length, parts));
    const {norm} = await apply(rates_3);
    const [value = Number.NaN] = await norm.data();
    norm.dispose();
    return summary(attempts, value);
  } finally {
    rates_3.dispose();
  }
}

async function accumulate(rows: ShardRows, part: number, {attempt, options}: StepParts): Promise<Attempt> {
  const share = tf.scalar(part);
  try {
    return await withBatch(rows, options, (batch) => attempt(batch, (fns) => fns.accumulate(batch, share)));
  } finally {
    share.dispose();
  }
}

function summary(attempts: readonly Attempt[], gradNorm: number): Raw {
  const mean = (i: number): number => attempts.reduce((sum, {figures}) => sum + (figures[i] ?? 0), 0) / attempts.length;
  const loads = new Int32Array(attempts[0]?.loads.length ?? 0);
  for (const one of attempts) for (const [i, rows] of one.loads.entries()) loads[i] = (loads[i] ?? 0) + rows;
  const overflow = attempts.reduce((sum, one) => sum + one.overflow, 0);
  return {loss: mean(0), balance: mean(1), z: mean(2), gradNorm, loads, overflow};
}

async function withBatch<T>(
  rows: ShardRows,
  {sequenceLength}: RunnerOptions,
  body: (batch: tf.Tensor3D) => Promise<T>,
): Promise<T> {
  const batch = batchTensor(rows, sequenceLength);
  try {
    return await body(batch);
  } finally {
    batch.dispose();
  }
}

async function readReport({figures, loads}: StepReport): Promise<{figures: Float32Array; loads: Int32Array}> {
  const values = {figures: await figures.data<'float32'>(), loads: await loads.data<'int32'>()};
  tf.dispose([figures, loads]);
  return values;
}

function moeLayouts({ffn}: Architecture): MoeLayout[] {
  return ffn.filter((layout) => layout.kind === 'moe');
}

/** The fullest expert of all layers, in even shares of its layer. */
function evenShares(loads: Int32Array, layouts: readonly MoeLayout[], tokens: number): number {
  const shares = byLayerRows(loads, layouts).map(
    ({rows, layout}) => (Math.max(...rows) * layout.experts) / (tokens * layout.topK),
  );
  return Math.max(0, ...shares);
}

function missingRows(loads: Int32Array, layouts: readonly MoeLayout[], tokens: number, factor: number): number {
  return byLayerRows(loads, layouts).reduce((sum, {rows, layout}) => {
    const room = expertRows(factor, tokens, layout);
    return room === 'all' ? sum : sum + rows.reduce((missing, wanted) => missing + Math.max(0, wanted - room), 0);
  }, 0);
}

/** The smallest bucket with room for `need` even shares in every layer. */
function bucketOf(need: number, layouts: readonly MoeLayout[], tokens: number): number {
  const buckets = layouts.map((layout) => bucketFor((need * tokens * layout.topK) / layout.experts, tokens, layout));
  return Math.max(CAPACITY_BUCKETS[0], ...buckets);
}

function byLayerRows(loads: Int32Array, layouts: readonly MoeLayout[]): {rows: number[]; layout: MoeLayout}[] {
  let begin = 0;
  return layouts.map((layout) => {
    const rows = [...loads.subarray(begin, begin + layout.experts)];
    begin += layout.experts;
    return {rows, layout};
  });
}

function byLayer(loads: Int32Array, layouts: readonly MoeLayout[]): number[][] {
  return byLayerRows(loads, layouts).map(({rows}) => {
    const total = rows.reduce((a, b) => a + b, 0);
    return rows.map((count) => count / total);
  });
}

/** JSON has no infinity: null stands for the last bucket. */
function fromState(state: CapacityState | null): number | null {
  return state && (state.factor ?? Number.POSITIVE_INFINITY);
}
