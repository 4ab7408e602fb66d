// What a step learns from: the loss of a micro-batch, and its gradients.
import * as tf from '../engine/tfjs.js';
import type {Variable} from '../engine/variable.js';
import {weightsOf} from '../model/adapter.js';
import type {Architecture} from '../model/architecture.js';
import {splitBatch} from '../model/batch.js';
import {type DecoderInput, decode, headOf} from '../model/decoder.js';
import type {RouterTrace} from '../model/moe.js';
import type {DecoderTree} from '../model/parameters.js';
import {linearCrossEntropy} from '../op/linear-cross-entropy.js';
import {type Lesson, linearDistillation, type Taught} from '../op/linear-distillation.js';
import {untaped} from '../op/untaped.js';
import {type LossWithReport, valueAndGradients} from '../op/value-and-gradients.js';
import type {Dropout, Weight} from '../op/weight.js';
import {at} from '../util/at.js';
import {type BalanceContext, balanceWeight, routerLosses} from './balance.js';
import {ofMembers} from './members.js';
import {layerRouters} from './routing/layer-router.js';
import type {TrainState} from './state.js';
import type {StepOptions, Teacher} from './step.js';

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

interface Differentiated {
  readonly gradients: tf.Tensor[];
  readonly figures: tf.Tensor1D;
  readonly loads: tf.Tensor1D;
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
