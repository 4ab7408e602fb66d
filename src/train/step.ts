import * as tf from '@tensorflow/tfjs';
import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import type {Variable} from '../engine/variable.js';
import {weightsOf} from '../model/adapter.js';
import type {Architecture} from '../model/architecture.js';
import {splitBatch} from '../model/batch.js';
import type {Capacity} from '../model/capacity.js';
import {type DecoderInput, decode, headOf} from '../model/decoder.js';
import type {Model} from '../model/model.js';
import type {RouterTrace} from '../model/moe.js';
import type {DecoderTree} from '../model/parameters.js';
import {linearCrossEntropy} from '../op/linear-cross-entropy.js';
import {type Lesson, linearDistillation, type Taught} from '../op/linear-distillation.js';
import {putMembers, takeMembers} from '../op/stack.js';
import {untaped} from '../op/untaped.js';
import {type LossWithReport, valueAndGradients} from '../op/value-and-gradients.js';
import type {Dropout, Weight} from '../op/weight.js';
import {type BalanceContext, type BalanceOptions, balanceWeight, routerLosses} from './balance.js';
import {clipFactor, globalNorm} from './optimizer/clip.js';
import {type OptimizerOptions, updated} from './optimizer/update.js';
import {PARTS, type Part} from './part.js';
import {layerRouters} from './routing/layer-router.js';
import type {RoutingOptions} from './routing/options.js';
import {moveBiases} from './selection-bias.js';
import {NO_LIMIT} from './spike.js';
import type {Trained, TrainState} from './state.js';

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
    for (const sum of [...sums, ...state.counts]) sum.assign(tf.zeros([...sum.shape]));
    return {norm};
  };
  return compile(apply, {name: 'train_apply'});
}

/** The rates of a step as the tensor that the compiled functions take: limit, both figures, a learning rate a part. */
export function ratesTensor({learningRate, figures, lossLimit = NO_LIMIT}: StepRates): tf.Tensor1D {
  return tf.tensor1d([lossLimit, ...figures, ...PARTS.map((part) => learningRate[part])]);
}

interface Differentiated {
  readonly gradients: tf.Tensor[];
  readonly figures: tf.Tensor1D;
  readonly loads: tf.Tensor1D;
}

/** A micro-batch as tensors. */
export interface StepInput {
  /** See {@link splitBatch}. */
  readonly batch_NBS: tf.Tensor3D;
  readonly seed_2: tf.Tensor1D;
  /** What it counts in a step of several: its share of the labels, for the loss, and of the passes, for router losses. */
  readonly share_2?: tf.Tensor1D;
  /** The teacher's likeliest words, ids and logarithms of their probabilities, float32 [2, T, K], where it gives those. */
  readonly taught_2TK?: tf.Tensor3D | undefined;
}

/** Loss and gradients of a micro-batch. */
export function differentiate(state: TrainState, options: StepOptions, given: StepInput): Differentiated {
  const {batch_NBS, seed_2} = given;
  const variables = state.trained.map(({variable}) => variable);
  const {report, gradients} = valueAndGradients(
    (values) => {
      const tensors = new Map(variables.map((variable, i) => [variable, at(values, i)]));
      const read = (variable: Variable): tf.Tensor => tensors.get(variable) ?? variable.read();
      const weights = weightsOf(state, read, dropoutOf(options, seed_2));
      const earlier = state.counts.map((count) => untaped(() => count.read()) as tf.Tensor1D);
      const context = {sequences: batch_NBS.shape[1], earlier};
      return lossOf(weights, state.architecture, given, options, context);
    },
    variables.map((variable) => variable.read()),
  );
  const [figures, loads] = report as [tf.Tensor1D, tf.Tensor1D];
  const trained = gradients.map((gradient, i) => ofMembers(gradient, at(state.trained, i)));
  return {gradients: trained, figures, loads};
}

/** Of a stack the members that train. */
function ofMembers(stack: tf.Tensor, {members}: Trained): tf.Tensor {
  return members ? takeMembers(stack, members) : stack;
}

/** Assigns what trains of a variable. */
function assignMembers(variable: Variable, value: tf.Tensor, {members}: Trained): void {
  variable.assign(members ? putMembers(variable.read(), members, value) : value);
}

/** Dropout with a seed of its own for every place. */
function dropoutOf({dropout: rate}: StepOptions, seed_2: tf.Tensor1D): (place: number) => Dropout | null {
  if (rate === 0) return () => null;
  return (place) => ({rate, seed_2: untaped(() => tf.add(seed_2, tf.tensor1d([0, place], 'int32')))});
}

/** The loss, and beside it its parts and the rows that wanted each expert. */
function lossOf(
  params: DecoderTree<Weight>,
  architecture: Architecture,
  {batch_NBS, seed_2, share_2, taught_2TK}: StepInput,
  {balance: options, capacity, teacher, routing, recompute}: StepOptions,
  context: BalanceContext,
): LossWithReport {
  const {input, label_T} = splitBatch(batch_NBS);
  const {hidden_TD, routers} = decode(params, architecture, input, {
    capacity,
    recomputesLayers: recompute === 'layer',
    ...layerRouters(routing, seed_2),
  });
  const {learnt, crossEntropy, divergence} = learningLoss(
    hidden_TD,
    headOf(params),
    label_T,
    teacher && {
      ...teacher,
      taught: taughtBy(teacher, input, taught_2TK),
    },
  );
  const {balance, z} = routerLosses(routers, options, context);
  const weighted: tf.Scalar = tf.add(tf.mul(balance, balanceWeight(options)), tf.mul(z, options.zLoss));
  const figures = tf.stack([crossEntropy, balance, z, divergence]);
  const [ofLabels, ofPasses] = share_2 ? (tf.unstack(share_2) as [tf.Scalar, tf.Scalar]) : [null, null];
  const own: tf.Scalar = ofLabels ? tf.mul(learnt, ofLabels) : learnt;
  const aside: tf.Scalar = ofPasses ? tf.mul(weighted, ofPasses) : weighted;
  const loss: tf.Scalar = routers.length > 0 ? tf.add(own, aside) : own;
  return {loss, report: [figures, joinLoads(routers)]};
}

/** The loss of the labels and, if there is one, of a teacher; beside it cross-entropy and divergence. */
function learningLoss(
  hidden_TD: tf.Tensor2D,
  head_VD: tf.Tensor2D,
  label_T: tf.Tensor1D,
  lesson: Lesson | null,
): Readonly<Record<'learnt' | 'crossEntropy' | 'divergence', tf.Scalar>> {
  if (!lesson) {
    const crossEntropy = linearCrossEntropy(hidden_TD, head_VD, label_T);
    return {learnt: crossEntropy, crossEntropy, divergence: tf.scalar(0)};
  }
  const losses = linearDistillation(hidden_TD, head_VD, label_T, lesson);
  const [learnt, crossEntropy, divergence] = tf.unstack(losses) as [tf.Scalar, tf.Scalar, tf.Scalar];
  return {learnt, crossEntropy, divergence};
}

/** What the teacher foresees of a micro-batch. */
function taughtBy({model}: Teacher, input: DecoderInput, taught_2TK: tf.Tensor3D | undefined): Taught {
  return untaped(() => {
    if (model) {
      const weights = weightsOf(model);
      return {
        kind: 'whole',
        hidden_TC: decode(weights, model.architecture, input).hidden_TD,
        head_VC: headOf(weights),
      };
    }
    if (!taught_2TK) throw new Error('a batch came without the words of its teacher');
    const [word_TK, logShare_TK] = tf.unstack(taught_2TK) as [tf.Tensor2D, tf.Tensor2D];
    return {kind: 'top', word_TK: tf.cast(word_TK, 'int32'), logShare_TK};
  });
}

/** Rows that wanted each expert, and each one inside, layers one after another, int32. */
function joinLoads(routers: readonly RouterTrace[]): tf.Tensor1D {
  const loads = routers.flatMap(({load_E, innerLoad_N}) => (innerLoad_N ? [load_E, innerLoad_N] : [load_E]));
  return untaped(() => (loads.length > 0 ? tf.concat1d(loads) : tf.zeros([0], 'int32')));
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

/** Updates what trains; says whether the step was fit to be applied. */
function applyGradients(
  {trained}: TrainState,
  {optimizer, clip, emaDecay = 0}: StepOptions,
  gradients: readonly tf.Tensor[],
  {norm, loss}: {readonly norm: tf.Scalar; readonly loss: tf.Scalar},
  rates_N: tf.Tensor1D,
): tf.Tensor {
  const [limit, ...rates] = tf.unstack(rates_N);
  if (!limit) throw new Error('the rates of a step begin with the limit of its loss');
  const isSafe = tf.logicalAnd(tf.isFinite(norm), tf.lessEqual(loss, limit));
  const factor = clip > 0 ? clipFactor(norm, clip) : null;
  const figures = rates.slice(0, -PARTS.length);
  const learningRates = rates.slice(-PARTS.length);
  for (const [i, one] of trained.entries()) {
    const slots = [...one.slots.values()];
    const gradient = factor ? tf.mul(at(gradients, i), factor) : at(gradients, i);
    const after = updated(optimizer, one, {
      value: ofMembers(one.variable.read(), one),
      slots: slots.map((slot) => slot.read()),
      gradient,
      learningRate: at(learningRates, PARTS.indexOf(one.part)),
      figures,
      isSafe,
      decays: one.decays,
    });
    assignMembers(one.variable, after.value, one);
    for (const [k, slot] of slots.entries()) slot.assign(at(after.slots, k));
    if (!one.ema) continue;
    const mean = ofMembers(one.ema.read(), one);
    assignMembers(one.ema, tf.where(isSafe, mixed(mean, after.value, emaDecay), mean), one);
  }
  return isSafe;
}

/** `decay·mean + (1 − decay)·value` */
function mixed(mean: tf.Tensor, value: tf.Tensor, decay: number): tf.Tensor {
  return tf.add(tf.mul(mean, decay), tf.mul(value, 1 - decay));
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`no item ${index} in a list of ${list.length}`);
  return item;
}
