// How a layer chooses its experts while it is fitted: its router, as tensors of one shape whichever layer it is.
// Shapes: T tokens, D width, F neurons, E the most experts a layer has.
import * as tf from '../engine/tfjs.js';
import type {RouterTree} from '../model/parameters.js';
import {routerLogits} from '../model/router.js';
import type {Walk} from '../model/walk.js';
import {matMul} from '../op/mat-mul.js';
import {TINY} from '../op/tiny.js';
import {createRng} from '../util/rng.js';
import {transposed} from '../util/transpose.js';
import {drawRouter} from './drawn-router.js';
import {compileCentres, inputCentres} from './input-centres.js';
import {type ConversionPlan, type LayerPlan, type PlanWidth, realExperts} from './plan.js';
import {compileExpertSums, sumActivity} from './predicted-activity.js';
import {type ActivityModel, fitActivity} from './ridge.js';
import type {RouterName} from './split-fields.js';
import {denseFfn} from './watch.js';

/** How experts are chosen and weighted. */
export interface ChoiceOptions {
  /** See `ROUTERS`; ridge and centroid are fitted, what is drawn at random is drawn by `seed`. */
  readonly router: RouterName;
  readonly seed: number;
  /** What the result of a chosen expert is multiplied with. */
  readonly weights: 'one' | 'score';
}

/** How a layer chooses. Experts that it does not have are never chosen. */
export type Choice = [
  router_DE: tf.Tensor2D,
  /** Zeros where the router has no such matrix. */
  up_DE: tf.Tensor2D,
  out_EE: tf.Tensor2D,
  bias_E: tf.Tensor1D,
  /** 1 where a neuron is an expert's. */
  member_EF: tf.Tensor2D,
  /** 1 where a neuron is shared. */
  shared_F: tf.Tensor1D,
  /** 1 at place K - 1: which of the sorted logits is the least that is chosen. */
  last_E: tf.Tensor1D,
];

/** A layer whose router is to be made. */
export interface ChoiceInput {
  /** At the layer. */
  readonly walk: Walk;
  readonly layer: number;
  readonly plan: LayerPlan;
  /** Hidden states of the converted model before the layer. */
  readonly converted: readonly Float32Array[];
  readonly functions: ReturnType<typeof compileChoice>;
  readonly options: ChoiceOptions;
  readonly sizes: ChoiceSizes;
}

/** Neurons of an FFN, and the most experts that a layer has. */
export interface ChoiceSizes extends PlanWidth {
  readonly mostExperts: number;
}

/** The sizes of a plan. */
export function choiceSizes({numNeurons, padding, layers}: ConversionPlan): ChoiceSizes {
  return {numNeurons, padding, mostExperts: Math.max(1, ...layers.map(({experts}) => experts.length))};
}

/** Logits of experts that a layer does not have: never chosen. */
const NEVER = -1e30;

/** Compiles what making routers runs on a walk. */
export function compileChoice(walk: Walk) {
  return {sums: compileExpertSums(walk), centres: compileCentres(walk)};
}

/** The choice of the loaded layer; the caller disposes. @throws DataError if there is too little text for its router. */
export async function chooseBy(input: ChoiceInput): Promise<Choice> {
  const masks = masksOf(input);
  try {
    const {router_DE, up_DE, out_EE, bias_E} = await makeRouter(input, masks.member_EF);
    const [D, E] = router_DE.shape;
    return [
      router_DE,
      up_DE ?? tf.zeros([D, E]),
      out_EE ?? tf.zeros([E, E]),
      bias_E ?? neverBeyond(input.plan, input.sizes.mostExperts),
      masks.member_EF,
      masks.shared_F,
      masks.last_E,
    ];
  } catch (error) {
    tf.dispose({...masks});
    throw error;
  }
}

function masksOf({plan, sizes}: ChoiceInput) {
  const shared = new Float32Array(sizes.numNeurons);
  for (const id of plan.shared) shared[id] = 1;
  return {
    member_EF: memberOf(plan, sizes),
    shared_F: tf.tensor1d(shared),
    last_E: lastChosen(plan, sizes.mostExperts),
  };
}

/** 1 where a neuron is an expert's, [E, F]. */
export function memberOf({experts}: LayerPlan, {numNeurons: F, mostExperts: E}: ChoiceSizes): tf.Tensor2D {
  const member = new Float32Array(E * F);
  for (const [e, ids] of experts.entries()) for (const id of ids) member[e * F + id] = 1;
  return tf.tensor2d(member, [E, F]);
}

/** 1 at place K - 1, [E]. */
export function lastChosen({topK}: LayerPlan, mostExperts: number): tf.Tensor1D {
  return tf.tensor1d(Float32Array.from({length: mostExperts}, (_, place) => (place === topK - 1 ? 1 : 0)));
}

/** What is added to the logits of experts: nothing, but for those that the layer does not have. */
function neverBeyond({experts}: LayerPlan, mostExperts: number): tf.Tensor1D {
  return tf.tensor1d(Float32Array.from({length: mostExperts}, (_, e) => (e < experts.length ? 0 : NEVER)));
}

/** What a router consists of; null for what its kind has not. */
interface MadeRouter {
  readonly router_DE: tf.Tensor2D;
  readonly up_DE: tf.Tensor2D | null;
  readonly out_EE: tf.Tensor2D | null;
  readonly bias_E: tf.Tensor1D | null;
}

async function makeRouter(input: ChoiceInput, member_EF: tf.Tensor2D): Promise<MadeRouter> {
  const linear = (router_DE: tf.Tensor2D): MadeRouter => ({router_DE, up_DE: null, out_EE: null, bias_E: null});
  const {router} = input.options;
  switch (router) {
    case 'gate-mean':
      return linear(gateMeans(input, member_EF));
    case 'representative':
      return {...linear(unitColumns(input, 'gate')), up_DE: unitColumns(input, 'up')};
    case 'ridge':
      return foreseen(input, member_EF);
    case 'centroid':
      return linear(await centres(input, member_EF));
    case 'random':
    case 'mlp': {
      const {walk, layer, plan, options, sizes} = input;
      const drawn = drawRouter({router, seed: options.seed}, walk.architecture, layer, plan.experts.length);
      const out_EE = drawn.routerOut && paddedColumns(drawn.routerOut, plan, sizes.mostExperts, sizes.mostExperts);
      return {...linear(paddedColumns(drawn.router, plan, sizes.mostExperts)), out_EE};
    }
  }
}

function gateMeans({walk, plan, sizes}: ChoiceInput, member_EF: tf.Tensor2D): tf.Tensor2D {
  const count_E = new Float32Array(sizes.mostExperts).fill(1); // also where there is no expert, and the sum is zero
  for (const [e, ids] of realExperts(plan, sizes).entries()) count_E[e] = ids.length;
  return tf.tidy(() => {
    const {gate} = denseFfn(walk.read().ffn);
    return tf.div(matMul(gate, member_EF, {transposeB: true}), tf.tensor1d(count_E));
  });
}

/** The column of every expert's representative, brought to length one; of the first neuron for experts that there are not. */
function unitColumns({walk, plan, sizes}: ChoiceInput, which: 'gate' | 'up'): tf.Tensor2D {
  const neuron_E = new Int32Array(sizes.mostExperts);
  neuron_E.set(plan.representatives ?? []);
  return tf.tidy(() => {
    const one_EF = tf.oneHot(tf.tensor1d(neuron_E, 'int32'), sizes.numNeurons).toFloat() as tf.Tensor2D;
    const picked_DE = matMul(denseFfn(walk.read().ffn)[which], one_EF, {transposeB: true});
    return tf.div(picked_DE, tf.maximum(tf.norm(picked_DE, 'euclidean', 0), TINY));
  });
}

async function foreseen(
  {walk, functions, converted, plan, sizes}: ChoiceInput,
  member_EF: tf.Tensor2D,
): Promise<MadeRouter> {
  const sums = (x_TD: tf.Tensor2D) => functions.sums(x_TD, member_EF);
  const activity = await sumActivity(walk, sums, converted, sizes.mostExperts);
  return {...tf.tidy(() => expertRouter(fitActivity(activity), plan)), up_DE: null, out_EE: null};
}

/** The router that foresees the activity of each expert, which is that of its neurons together. */
export function expertRouter(
  {weight_DK, intercept_K}: ActivityModel,
  plan: LayerPlan,
): Pick<MadeRouter, 'router_DE'> & {readonly bias_E: tf.Tensor1D} {
  const bias_E = tf.add(intercept_K, neverBeyond(plan, intercept_K.shape[0])) as tf.Tensor1D;
  return {router_DE: weight_DK, bias_E};
}

async function centres(input: ChoiceInput, member_RF: tf.Tensor2D): Promise<tf.Tensor2D> {
  const {walk, layer, plan, converted: batches, functions, options, sizes} = input;
  const numExperts = plan.experts.length;
  const rng = createRng(options.seed, `router/layer-${layer}`);
  const row_ED = await inputCentres({walk, functions: functions.centres, batches, member_RF, numExperts, rng});
  return paddedColumns(transposed(row_ED, numExperts, walk.architecture.width), plan, sizes.mostExperts);
}

/** Values [rows, experts of the layer] as a tensor of the most columns, and rows, that a layer has; zeros elsewhere. */
function paddedColumns(
  values: Float32Array,
  {experts}: LayerPlan,
  mostColumns: number,
  mostRows?: number,
): tf.Tensor2D {
  const rows = values.length / experts.length;
  const padding = [
    [0, (mostRows ?? rows) - rows],
    [0, mostColumns - experts.length],
  ] as [number, number][];
  return tf.tidy(() => tf.pad(tf.tensor2d(values, [rows, experts.length]), padding));
}

/** What each token multiplies each neuron with: 1 if shared, the weight of its expert if that was chosen, else 0; [T, F]. */
export function neuronWeights(
  y_TD: tf.Tensor2D,
  [router_DE, up_DE, out_EE, bias_E, member_EF, shared_F, last_E]: Choice,
  {router, weights}: ChoiceOptions,
): tf.Tensor2D {
  const matrices: RouterTree<tf.Tensor> = {
    router: router_DE,
    routerUp: router === 'representative' ? up_DE : null,
    routerOut: router === 'mlp' ? out_EE : null,
  };
  const logit_TE = tf.add(routerLogits(y_TD, matrices), bias_E) as tf.Tensor2D;
  const chosen_TE = chosenExperts(logit_TE, last_E);
  const weight_TE = weights === 'one' ? chosen_TE : tf.mul(chosen_TE, tf.softmax(logit_TE));
  return tf.add(matMul(weight_TE as tf.Tensor2D, member_EF), shared_F);
}

/** 1 where a token chooses an expert, [T, E]; `last_E` as in {@link Choice}. */
export function chosenExperts(logit_TE: tf.Tensor2D, last_E: tf.Tensor1D): tf.Tensor2D {
  const sorted_TE = tf.topk(logit_TE, logit_TE.shape[1]).values;
  const least_T1 = tf.sum(tf.mul(sorted_TE, last_E), 1, true);
  return tf.mul(tf.cast(tf.greaterEqual(logit_TE, least_T1), 'float32'), tf.max(last_E));
}
