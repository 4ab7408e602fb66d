import * as tf from '@tensorflow/tfjs';
import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import type {Variable} from '../engine/variable.js';
import type {Architecture} from '../model/architecture.js';
import {splitBatch} from '../model/batch.js';
import type {Capacity} from '../model/capacity.js';
import {decode} from '../model/decoder.js';
import type {RouterTrace} from '../model/moe.js';
import {type DecoderTree, leavesOf, type ParameterSpec, parameterSpecs, treeOf} from '../model/parameters.js';
import {linearCrossEntropy} from '../op/linear-cross-entropy.js';
import {untaped} from '../op/untaped.js';
import {type LossWithReport, valueAndGradients} from '../op/value-and-gradients.js';
import {routerLosses} from './balance.js';
import {
  type AdamWOptions,
  adamW,
  clipFactor,
  decays,
  globalNorm,
  type StepRates,
  type UpdateTensors,
} from './optimizer.js';

/** A model in training: weights and both moments, one list entry a leaf of the tree. */
export interface TrainState {
  readonly architecture: Architecture;
  readonly parameters: DecoderTree<Variable>;
  readonly first: readonly Variable[];
  readonly second: readonly Variable[];
  /** Sums of gradients over micro-batches; empty without accumulation. */
  readonly sums: readonly Variable[];
}

/** What a step does besides the mathematics of the model. */
export interface StepOptions {
  readonly optimizer: AdamWOptions;
  /** Largest global gradient norm; 0 does not clip. */
  readonly clip: number;
  readonly balanceWeight: number;
  readonly zWeight: number;
  readonly capacity: Capacity;
  readonly precision: Precision;
}

/** The compiled functions of a step; tensors in, tensors out. */
export interface StepFunctions {
  /** One whole step: `(batch_NBS, rates_3) → report`. */
  readonly step: Compiled<[tf.Tensor3D, tf.Tensor1D], StepReport>;
  /** Adds a micro-batch's gradients to the sums: `(batch_NBS, share) → report`. */
  readonly accumulate: Compiled<[tf.Tensor3D, tf.Scalar], StepReport>;
}

/** Results of a step as tensors. */
export interface StepReport {
  readonly [key: string]: tf.Tensor;
  /** Loss, balance loss, z-loss, gradient norm. */
  readonly figures: tf.Tensor1D;
  /** Wanted rows of every expert, then of every one inside, layers one after another, int32. */
  readonly loads: tf.Tensor1D;
}

/** Compiles training. When the gradient's norm is not finite, nothing is assigned, and the caller stops. */
export function compileStep(state: TrainState, options: StepOptions): StepFunctions {
  const {precision} = options;
  const step = (batch_NBS: tf.Tensor3D, rates_3: tf.Tensor1D): StepReport => {
    const {gradients, figures, loads} = differentiate(state, options, batch_NBS);
    const norm = globalNorm(gradients);
    applyGradients(state, options, gradients, norm, rates_3, tf.isFinite(norm));
    return {figures: tf.concat1d([figures, tf.reshape(norm, [1])]), loads};
  };
  const accumulate = (batch_NBS: tf.Tensor3D, share: tf.Scalar): StepReport => {
    const {gradients, figures, loads} = differentiate(state, options, batch_NBS);
    for (const [i, gradient] of gradients.entries()) {
      const sum = at(state.sums, i);
      sum.assign(tf.add(sum.read(), tf.mul(gradient, share)));
    }
    return {figures: tf.concat1d([figures, tf.zeros([1])]), loads};
  };
  return {
    step: compile(step, {name: 'train_step', precision}),
    accumulate: compile(accumulate, {name: 'train_accumulate', precision}),
  };
}

/** Compiles the update from accumulated gradients, which also empties the sums: `rates_3 → norm`. */
export function compileApply(state: TrainState, options: StepOptions): Compiled<[tf.Tensor1D], {norm: tf.Tensor}> {
  const apply = (rates_3: tf.Tensor1D): {norm: tf.Tensor} => {
    const gradients = state.sums.map((sum) => sum.read());
    const norm = globalNorm(gradients);
    applyGradients(state, options, gradients, norm, rates_3, tf.isFinite(norm));
    for (const sum of state.sums) sum.assign(tf.zeros([...sum.shape]));
    return {norm};
  };
  return compile(apply, {name: 'train_apply'});
}

/** The three rates of a step as the tensor that the compiled functions take. */
export function ratesTensor({learningRate, firstCorrection, secondCorrection}: StepRates): tf.Tensor1D {
  return tf.tensor1d([learningRate, firstCorrection, secondCorrection]);
}

interface Differentiated {
  readonly gradients: tf.Tensor[];
  readonly figures: tf.Tensor1D;
  readonly loads: tf.Tensor1D;
}

function differentiate(
  {architecture, parameters}: TrainState,
  options: StepOptions,
  batch_NBS: tf.Tensor3D,
): Differentiated {
  const values = leavesOf(parameters).map((variable) => variable.read());
  const {report, gradients} = valueAndGradients(
    (given) => lossOf(treeOf(parameters, given), architecture, batch_NBS, options),
    values,
  );
  const [figures, loads] = report as [tf.Tensor1D, tf.Tensor1D];
  return {gradients, figures, loads};
}

/** The loss, and beside it its parts and the rows that wanted each expert. */
function lossOf(
  params: DecoderTree<tf.Tensor>,
  architecture: Architecture,
  batch_NBS: tf.Tensor3D,
  {balanceWeight, zWeight, capacity}: StepOptions,
): LossWithReport {
  const {input, label_T} = splitBatch(batch_NBS);
  const {hidden_TD, routers} = decode(params, architecture, input, {capacity});
  const crossEntropy = linearCrossEntropy(hidden_TD, (params.head ?? params.embed) as tf.Tensor2D, label_T);
  const {balance, z} = routerLosses(routers, topKs(architecture));
  const weighted = tf.add(tf.mul(balance, balanceWeight), tf.mul(z, zWeight));
  const figures = tf.stack([crossEntropy, balance, z]);
  const loss: tf.Scalar = routers.length > 0 ? tf.add(crossEntropy, weighted) : crossEntropy;
  return {loss, report: [figures, joinLoads(routers)]};
}

/** Rows that wanted each expert, and each one inside, layers one after another, int32. */
function joinLoads(routers: readonly RouterTrace[]): tf.Tensor1D {
  const loads = routers.flatMap(({load_E, innerLoad_N}) => (innerLoad_N ? [load_E, innerLoad_N] : [load_E]));
  return untaped(() => (loads.length > 0 ? tf.concat1d(loads) : tf.zeros([0], 'int32')));
}

function topKs({ffn}: Architecture): number[] {
  return ffn.flatMap((layout) => (layout.kind === 'moe' ? [layout.topK] : []));
}

function applyGradients(
  state: TrainState,
  {optimizer, clip}: StepOptions,
  gradients: readonly tf.Tensor[],
  norm: tf.Scalar,
  rates_3: tf.Tensor1D,
  isSafe: tf.Scalar,
): void {
  const [learningRate, firstCorrection, secondCorrection] = tf.unstack(rates_3) as [tf.Tensor, tf.Tensor, tf.Tensor];
  const shared: UpdateTensors = {learningRate, firstCorrection, secondCorrection, isSafe};
  const factor = clip > 0 ? clipFactor(norm, clip) : null;
  const specs: ParameterSpec[] = leavesOf(parameterSpecs(state.architecture));
  for (const [i, variable] of leavesOf(state.parameters).entries()) {
    const first = at(state.first, i);
    const second = at(state.second, i);
    const before = {value: variable.read(), first: first.read(), second: second.read()};
    const gradient = factor ? tf.mul(at(gradients, i), factor) : at(gradients, i);
    const after = adamW(before, gradient, shared, optimizer, decays(at(specs, i).role) ? optimizer.weightDecay : 0);
    variable.assign(after.value);
    first.assign(after.first);
    second.assign(after.second);
  }
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`no item ${index} in a list of ${list.length}`);
  return item;
}
