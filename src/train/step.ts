import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import * as tf from '../engine/tfjs.js';
import type {Architecture} from '../model/architecture.js';
import type {Capacity} from '../model/capacity.js';
import type {Model} from '../model/model.js';
import {at} from '../util/at.js';
import type {BalanceOptions} from './balance-options.js';
import {globalNorm} from './optimizer/clip.js';
import type {OptimizerOptions} from './optimizer/update.js';
import {PARTS, type Part} from './part.js';
import type {RoutingOptions} from './routing/options.js';
import {moveBiases} from './selection-bias.js';
import {NO_LIMIT} from './spike.js';
import type {TrainState} from './state.js';
import {applyGradients} from './step-apply.js';
import {differentiate} from './step-loss.js';

/** What a step does besides the mathematics of the model. */
export interface StepOptions {
  readonly optimizer: OptimizerOptions;
  /** Largest global gradient norm; 0 does not clip. */
  readonly clip: number;
  readonly balance: BalanceOptions;
  readonly capacity: Capacity;
  /** How tokens are routed while training; as the model says if absent. */
  readonly routing?: RoutingOptions;
  readonly precision: Precision;
  /** Share of the input of low-rank terms that is dropped. */
  readonly dropout: number;
  /** What the backward pass computes again; default nothing. */
  readonly recompute?: Recompute;
  /** A model to learn from besides the labels; null for none. */
  readonly teacher: Teacher | null;
  /** Of the running means, where the state keeps them. */
  readonly emaDecay?: number;
}

/** Nothing, or each layer from its input. */
export type Recompute = 'none' | 'layer';

/** What teaches: see {@link linearDistillation}. */
export interface Teacher {
  /** A model that runs beside the one in training; null where a batch comes with the teacher's likeliest words. */
  readonly model: Pick<Model, 'architecture' | 'parameters'> | null;
  readonly temperature: number;
  readonly weight: number;
}

/** The compiled functions of a step; tensors in, tensors out. */
export interface StepFunctions {
  /** One whole step: `(batch_NBS, seed_2, rates_N, taught_2TK where there is one) → report`. */
  readonly step: Compiled<[tf.Tensor3D, tf.Tensor1D, tf.Tensor1D, ...tf.Tensor3D[]], StepReport>;
  /** Adds a micro-batch's gradients to the sums: `(batch_NBS, seed_2, share_2, taught_2TK where there is one) → report`. */
  readonly accumulate: Compiled<[tf.Tensor3D, tf.Tensor1D, tf.Tensor1D, ...tf.Tensor3D[]], StepReport>;
}

/** Numbers that change every step. */
export interface StepRates {
  readonly learningRate: Readonly<Record<Part, number>>;
  /** See {@link stepFigures}. */
  readonly figures: readonly [number, number];
  /** A step whose loss is above it changes nothing; none if absent. */
  readonly lossLimit?: number;
}

/** Results of a step as tensors. */
export interface StepReport {
  readonly [key: string]: tf.Tensor;
  /** Loss, balance loss, z-loss, divergence from the teacher, gradient norm. */
  readonly figures: tf.Tensor1D;
  /** Wanted rows of every expert, then of every one inside, layers one after another, int32. */
  readonly loads: tf.Tensor1D;
}

/** Compiles training. When the gradient's norm is not finite or the loss above its limit, nothing is assigned. */
export function compileStep(state: TrainState, options: StepOptions): StepFunctions {
  const {precision} = options;
  const step = (
    batch_NBS: tf.Tensor3D,
    seed_2: tf.Tensor1D,
    rates_N: tf.Tensor1D,
    ...[taught_2TK]: tf.Tensor3D[]
  ): StepReport => {
    const {gradients, figures, loads} = differentiate(state, options, {batch_NBS, seed_2, taught_2TK});
    const norm = globalNorm(gradients);
    const loss = tf.reshape(tf.slice1d(figures, 0, 1), []) as tf.Scalar;
    const isSafe = applyGradients(state, options, gradients, {norm, loss}, rates_N);
    balanceBiases(state, options, ownLoads(state.architecture, loads), isSafe);
    return {figures: tf.concat1d([figures, tf.reshape(norm, [1])]), loads};
  };
  const accumulate = (
    batch_NBS: tf.Tensor3D,
    seed_2: tf.Tensor1D,
    share_2: tf.Tensor1D,
    ...[taught_2TK]: tf.Tensor3D[]
  ): StepReport => {
    const {gradients, figures, loads} = differentiate(state, options, {batch_NBS, seed_2, share_2, taught_2TK});
    for (const [i, {sum}] of state.trained.entries()) sum?.assign(tf.add(sum.read(), at(gradients, i)));
    for (const [i, load_E] of ownLoads(state.architecture, loads).entries()) {
      const count = at(state.counts, i);
      count.assign(tf.add(count.read(), load_E));
    }
    return {figures: tf.concat1d([figures, tf.zeros([1])]), loads};
  };
  return {
    step: compile(step, {name: 'train_step', precision}),
    accumulate: compile(accumulate, {name: 'train_accumulate', precision}),
  };
}

/** Compiles the update from accumulated gradients, which also empties the sums: `(rates_N, loss) → norm`. */
export function compileApply(
  state: TrainState,
  options: StepOptions,
): Compiled<[tf.Tensor1D, tf.Scalar], {norm: tf.Tensor}> {
  const sums = state.trained.flatMap(({sum}) => sum ?? []);
  const apply = (rates_N: tf.Tensor1D, loss: tf.Scalar): {norm: tf.Tensor} => {
    const gradients = sums.map((sum) => sum.read());
    const norm = globalNorm(gradients);
    const isSafe = applyGradients(state, options, gradients, {norm, loss}, rates_N);
    balanceBiases(
      state,
      options,
      state.counts.map((count) => count.read() as tf.Tensor1D),
      isSafe,
    );
    for (const sum of [...sums, ...state.counts]) sum.assign(tf.fill([...sum.shape], 0));
    return {norm};
  };
  return compile(apply, {name: 'train_apply'});
}

/** The rates of a step as the tensor that the compiled functions take: limit, both figures, a learning rate a part. */
export function ratesTensor({learningRate, figures, lossLimit = NO_LIMIT}: StepRates): tf.Tensor1D {
  return tf.tensor1d([lossLimit, ...figures, ...PARTS.map((part) => learningRate[part])]);
}

/** Of joined loads those of each layer's own experts, float32. */
function ownLoads({ffn}: Architecture, loads: tf.Tensor1D): tf.Tensor1D[] {
  let begin = 0;
  return ffn.flatMap((layout) => {
    if (layout.kind !== 'moe') return [];
    const load_E = tf.cast(tf.slice(loads, [begin], [layout.experts]), 'float32');
    begin += layout.experts * (1 + (layout.inner?.experts ?? 0));
    return [load_E];
  });
}

function balanceBiases(
  {parameters}: TrainState,
  {balance}: StepOptions,
  loads: readonly tf.Tensor1D[],
  isSafe: tf.Tensor,
): void {
  if (balance.kind === 'bias') moveBiases(parameters, loads, balance.rate, isSafe);
}
