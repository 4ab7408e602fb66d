import * as tf from '../engine/tfjs.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {type Architecture, moeLayouts} from '../model/architecture.js';
import {batchTensor, countLabels} from '../model/batch.js';
import {type ExpertSizes, expertRoom, missingRows} from '../model/capacity.js';
import {flatLayout} from '../model/inner.js';
import {createRng} from '../util/rng.js';
import type {TrainState} from './state.js';
import {
  compileApply,
  compileStep,
  ratesTensor,
  type StepFunctions,
  type StepOptions,
  type StepRates,
  type StepReport,
} from './step.js';
import type {StepInput} from './step-loss.js';

/** What one optimizer step gave. */
export interface StepResult {
  readonly loss: number;
  readonly balance: number;
  readonly z: number;
  /** KL of the teacher's words from the model's; 0 without a teacher. */
  readonly divergence: number;
  readonly gradNorm: number;
  /** By MoE layer, the share of routed rows each expert got. */
  readonly load: readonly (readonly number[])[];
  /** Rows that a capacity factor dropped. */
  readonly overflow: number;
}

/** Rows to learn from, and what a teacher foresees of them where it is not asked in the step. */
export interface TrainRows extends ShardRows {
  /** float32 [2, T, K]; see `StepInput`. */
  readonly taught?: Float32Array;
}

/** Runs optimizer steps. */
export interface StepRunner {
  /** One optimizer step over micro-batches of equal size. */
  run(batches: readonly TrainRows[], rates: StepRates, seed: StepSeed): Promise<StepResult>;
  dispose(): void;
}

/** What the random numbers of a step hang on: the run's seed, and the step. */
export interface StepSeed {
  readonly seed: number;
  readonly step: number;
}

/** What a runner needs besides the state it trains. */
export interface RunnerOptions extends StepOptions {
  readonly sequenceLength: number;
}

/** Creates a runner; its functions are compiled at the first step. */
export function createStepRunner(state: TrainState, options: RunnerOptions): StepRunner {
  const accumulates = state.trained.some(({sum}) => sum);
  const apply = accumulates ? compileApply(state, options) : null;
  const parts = {...compileStep(state, options), architecture: state.architecture, options};
  return {
    run: async (batches, rates, seed) => {
      const rates_N = ratesTensor(rates);
      try {
        return apply
          ? await runAccumulated({...parts, apply}, batches, rates_N, seed)
          : await runAtOnce(parts, batches, rates_N, seed);
      } finally {
        rates_N.dispose();
      }
    },
    dispose: () => {
      for (const fn of [parts.step, parts.accumulate, apply]) fn?.dispose();
    },
  };
}

/** What runs steps. */
interface Parts extends StepFunctions {
  readonly architecture: Architecture;
  readonly options: RunnerOptions;
}

type Apply = ReturnType<typeof compileApply>;
type StepCall = (batch: tf.Tensor3D, seed_2: tf.Tensor1D, taught: readonly tf.Tensor3D[]) => Promise<StepReport>;

async function runAtOnce(
  parts: Parts,
  batches: readonly TrainRows[],
  rates_N: tf.Tensor1D,
  seed: StepSeed,
): Promise<StepResult> {
  const [rows] = batches;
  if (!rows || batches.length > 1)
    throw new Error(`a step without accumulation takes one batch, got ${batches.length}`);
  const one = await report(parts, rows, seedWords(seed, 0), (batch, seed_2, taught) =>
    parts.step(batch, seed_2, rates_N, ...taught),
  );
  return summary([one], one.figures[NORM] ?? Number.NaN);
}

async function runAccumulated(
  {apply, ...parts}: Parts & {readonly apply: Apply},
  batches: readonly TrainRows[],
  rates_N: tf.Tensor1D,
  seed: StepSeed,
): Promise<StepResult> {
  if (batches.length === 0) throw new Error('accumulation needs batches');
  const labels = batches.map((rows) => countLabels(rows, parts.options.sequenceLength));
  const reports: Report[] = [];
  for (const [i, rows] of batches.entries()) {
    const share = shareOf(labels, i);
    const add: StepCall = (batch, seed_2, taught) =>
      withTensor(tf.tensor1d([share, 1 / batches.length]), (share_2) =>
        parts.accumulate(batch, seed_2, share_2, ...taught),
      );
    reports.push({...(await report(parts, rows, seedWords(seed, i), add)), share});
  }
  const {norm} = await withTensor(tf.scalar(lossFigure(reports, 0)), (loss) => apply(rates_N, loss));
  const [gradNorm = Number.NaN] = await norm.data();
  norm.dispose();
  return summary(reports, gradNorm);
}

/** What a pass counts in the loss of a step: its share of all labels, so that every label counts the same. */
function shareOf(labels: readonly number[], pass: number): number {
  const all = total(labels);
  return all === 0 ? 1 / labels.length : (labels[pass] ?? 0) / all;
}

function report({architecture, options}: Parts, rows: TrainRows, seed: Int32Array, call: StepCall): Promise<Report> {
  return withBatch(rows, options.sequenceLength, seed, async ({batch_NBS: batch, seed_2, taught_2TK}) => {
    const {figures, loads} = await readReport(await call(batch, seed_2, taught_2TK ? [taught_2TK] : []));
    const tokens = (batch.shape[1] ?? 0) * (batch.shape[2] ?? 0);
    return {figures, share: 1, layers: loadsByLayer(loads, architecture, tokens, options)};
  });
}

/** Place of the gradient norm among the figures of a step. */
const NORM = 4;

/** What a micro-batch gave. */
interface Report {
  /** As in {@link StepReport}. */
  readonly figures: Float32Array;
  /** Of the labels of the step. */
  readonly share: number;
  readonly layers: readonly LayerLoad[];
}

interface LayerLoad {
  /** Rows that wanted each expert. */
  readonly load_E: Int32Array;
  /** Those of experts inside, too. */
  readonly missing: number;
}

function loadsByLayer(
  loads: Int32Array,
  architecture: Architecture,
  tokens: number,
  {capacity, routing}: StepOptions,
): readonly LayerLoad[] {
  let end = 0;
  const take = (layout: ExpertSizes): LayerLoad => {
    const load_E = loads.subarray(end, end + layout.experts);
    end += layout.experts;
    // Experts that choose their tokens have room for just those, and experts that all compute for all.
    const isComplete = routing?.kind === 'expert-choice' || routing?.kind === 'all-experts';
    const room = isComplete ? 'all' : expertRoom(capacity, tokens, layout);
    return {load_E, missing: missingRows(load_E, room)};
  };
  return moeLayouts(architecture).map((layout) => {
    const {load_E, missing} = take(layout);
    return {load_E, missing: missing + (layout.inner ? take(flatLayout(layout, layout.inner)).missing : 0)};
  });
}

function summary(reports: readonly Report[], gradNorm: number): StepResult {
  const mean = (i: number): number => meanFigure(reports, i);
  const overflow = total(reports.flatMap(({layers}) => layers.map(({missing}) => missing)));
  const load = (reports[0]?.layers ?? []).map((_, i) => shares(reports.flatMap(({layers}) => layers[i] ?? [])));
  const [loss, divergence] = [lossFigure(reports, 0), lossFigure(reports, 3)];
  return {loss, balance: mean(1), z: mean(2), divergence, gradNorm, load, overflow};
}

/** A mean over the labels of the step. */
function lossFigure(reports: readonly Report[], i: number): number {
  return total(reports.map(({figures, share}) => (figures[i] ?? 0) * share));
}

function meanFigure(reports: readonly Report[], i: number): number {
  return total(reports.map(({figures}) => figures[i] ?? 0)) / reports.length;
}

/** The share of each expert over all micro-batches of a layer. */
function shares(loads: readonly LayerLoad[]): number[] {
  const rows = Array.from(loads[0]?.load_E ?? [], (_, e) => total(loads.map(({load_E}) => load_E[e] ?? 0)));
  return rows.map((count) => count / total(rows));
}

function total(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** The seed of one micro-batch: its places add their own number to the second word. */
export function seedWords({seed, step}: StepSeed, microBatch: number): Int32Array {
  const rng = createRng(seed, `step ${step}, micro-batch ${microBatch}`);
  return Int32Array.of(rng.uint32(), rng.uint32());
}

/** Runs `body` with a micro-batch and its seed as tensors. */
export async function withBatch<T>(
  rows: TrainRows,
  sequenceLength: number,
  seed: Int32Array,
  body: (input: StepInput) => Promise<T>,
): Promise<T> {
  const batch_NBS = batchTensor(rows, sequenceLength);
  const tokens = (batch_NBS.shape[1] ?? 0) * (batch_NBS.shape[2] ?? 0);
  const input: StepInput = {
    batch_NBS,
    seed_2: tf.tensor1d(seed, 'int32'),
    ...(rows.taught && {taught_2TK: tf.tensor3d(rows.taught, [2, tokens, rows.taught.length / 2 / tokens])}),
  };
  try {
    return await body(input);
  } finally {
    tf.dispose({...input});
  }
}

async function withTensor<T extends tf.Tensor, R>(tensor: T, body: (tensor: T) => Promise<R>): Promise<R> {
  try {
    return await body(tensor);
  } finally {
    tensor.dispose();
  }
}

async function readReport({figures, loads}: StepReport): Promise<{figures: Float32Array; loads: Int32Array}> {
  try {
    return {figures: await figures.data<'float32'>(), loads: await loads.data<'int32'>()};
  } finally {
    tf.dispose([figures, loads]);
  }
}
