// What a conversion learns from calibration text in closed form, layer by layer and with the converted layers before it in
// place: routers by ridge regression, down projections by least squares. Shapes: T tokens, D width, F neurons, E the most
// experts a layer has.
import * as tf from '@tensorflow/tfjs';
import {addFfn, throughAttention} from '../model/decoder.js';
import {routerLogits} from '../model/router.js';
import {hiddenTensor, type LayerScope, startWalk, type Walk} from '../model/walk.js';
import {choleskySolve} from '../op/cholesky.js';
import {matMul} from '../op/mat-mul.js';
import {swiglu} from '../op/swiglu.js';
import {ModelError} from '../util/errors.js';
import type {Calibration} from './calibration.js';
import type {DenseSource} from './convert-source.js';
import type {ConversionPlan, LayerPlan} from './plan.js';
import {compileSums, sumActivity} from './predicted-activity.js';
import {fitActivity} from './ridge.js';
import {denseFfn} from './watch.js';

/** What is fitted. */
export interface FitOptions {
  /**
   * gate-mean: the mean of an expert's gate rows. representative: the activation of one of its neurons. ridge: its activity
   * as the input foresees it; only this is fitted.
   */
  readonly router: 'gate-mean' | 'representative' | 'ridge';
  /** Whether down projections are fitted to what the dense model computes. */
  readonly refits: boolean;
  /** How much a fitted down projection is held to the dense one: λ in `λ · mean diag(MᵀM) · |W - Wd|²`. */
  readonly refitWeight: number;
  /** What the result of a chosen expert is multiplied with. */
  readonly weights: 'one' | 'score';
}

/** What was fitted for a layer. */
export interface FittedLayer {
  /** Router in the Hugging Face layout, float32 [E, D] for the experts of this layer. */
  readonly router_ED: Float32Array;
  /** Selection bias, float32 [E]; null where the router has none. */
  readonly bias_E: Float32Array | null;
  /** Down projection of all neurons in the Hugging Face layout, float32 [D, F]; null where it stays as it is. */
  readonly down_DF: Float32Array | null;
  /** Squared error of the layer's output over that of the dense layer, before and after the fit of the down projection. */
  readonly error: {readonly before: number; readonly after: number} | null;
}

/** Fits a model's layers in turn. */
export interface Fit {
  /** Layers must be asked for in their order, from 0; the last one may be asked for again. */
  layer(index: number): Promise<FittedLayer>;
  dispose(): void;
}

/** Least length that anything is divided by: a row of zeros stays one. */
const TINY = 1e-30;
/** Logits of experts that a layer does not have: never chosen. */
const NEVER = -1e30;

/** Starts fitting; the engine must have been started. */
export async function startFit(
  {folder, architecture, numNeurons}: DenseSource,
  calibration: Calibration,
  {layers}: ConversionPlan,
  options: FitOptions,
): Promise<Fit> {
  const walk = await startWalk(folder, architecture, calibration);
  // The converted model sees the same text; its hidden states part from the dense ones layer by layer.
  const converted = walk.batches.map((batch) => batch.slice());
  const sizes = {numNeurons, mostExperts: Math.max(1, ...layers.map(({experts}) => experts.length))};
  const functions = compileFit(walk, options);
  let last: {readonly index: number; readonly fitted: FittedLayer} | null = null;
  return {
    layer: async (index) => {
      if (last?.index === index) return last.fitted;
      const plan = layers[index];
      if (!plan || index !== (last?.index ?? -1) + 1) throw new Error(`layer ${index} is fitted out of turn`);
      await walk.load(index);
      last = {index, fitted: await fitLayer({walk, converted, functions, options, sizes}, plan)};
      return last.fitted;
    },
    dispose: () => {
      for (const fn of [functions.sums, functions.grams, functions.advance]) fn.dispose();
      walk.dispose();
    },
  };
}

interface Fitting {
  readonly walk: Walk;
  /** Hidden states of the converted model, moved on layer by layer. */
  readonly converted: readonly Float32Array[];
  readonly functions: ReturnType<typeof compileFit>;
  readonly options: FitOptions;
  readonly sizes: {readonly numNeurons: number; readonly mostExperts: number};
}

/** How a layer chooses, as tensors of one shape whichever layer it is. */
type Choice = [
  router_DE: tf.Tensor2D,
  /** Zeros where the router is linear. */
  up_DE: tf.Tensor2D,
  bias_E: tf.Tensor1D,
  /** 1 where a neuron is an expert's. */
  member_EF: tf.Tensor2D,
  /** 1 where a neuron is shared. */
  shared_F: tf.Tensor1D,
  /** 1 at place K - 1: which of the sorted logits is the least that is chosen. */
  last_E: tf.Tensor1D,
];

async function fitLayer(fitting: Fitting, plan: LayerPlan): Promise<FittedLayer> {
  const choice = await chooseBy(fitting, plan);
  const {walk, options} = fitting;
  const [router_DE, , bias_E] = choice;
  try {
    const grams = options.refits ? await addGrams(fitting, choice) : null;
    const down_FD = grams ? refit(grams, denseDown(walk), options.refitWeight) : denseDown(walk);
    const after = await advance(fitting, down_FD, choice);
    const [D, E] = [walk.architecture.width, plan.experts.length];
    const fitted: FittedLayer = {
      router_ED: (await transposed(router_DE)).slice(0, E * D),
      bias_E: options.router === 'ridge' ? Float32Array.from(await bias_E.data()).slice(0, E) : null,
      down_DF: grams && (await transposed(down_FD)),
      error: grams && {before: grams.error / grams.size, after: after / grams.size},
    };
    tf.dispose(down_FD);
    requireFinite(fitted);
    return fitted;
  } finally {
    tf.dispose(choice);
  }
}

/** @throws ModelError if a solution is not made of finite numbers. */
function requireFinite({router_ED, bias_E, down_DF}: FittedLayer): void {
  if ([router_ED, bias_E, down_DF].every((values) => values?.every(Number.isFinite) ?? true)) return;
  throw new ModelError('A fitted router or down projection is not made of finite numbers.', {
    hint: 'Calibrate on more tokens, or raise repairWeight.',
  });
}

async function transposed(x: tf.Tensor2D): Promise<Float32Array> {
  const turned = tf.transpose(x);
  const values = Float32Array.from(await turned.data());
  turned.dispose();
  return values;
}

/** The router and the experts of a layer; empty experts are never chosen. */
async function chooseBy({walk, converted, functions, options, sizes}: Fitting, plan: LayerPlan): Promise<Choice> {
  const {numNeurons: F, mostExperts: E} = sizes;
  const member = new Float32Array(E * F);
  for (const [e, ids] of plan.experts.entries()) for (const id of ids) member[e * F + id] = 1;
  const shared = new Float32Array(F);
  for (const id of plan.shared) shared[id] = 1;
  const last = Float32Array.from({length: E}, (_, place) => (place === plan.topK - 1 ? 1 : 0));
  const never = Float32Array.from({length: E}, (_, e) => (e < plan.experts.length ? 0 : NEVER));
  const sums = options.router === 'ridge' ? await sumActivity(walk, functions.sums, converted, F) : null;
  return tf.tidy(() => {
    const member_EF = tf.tensor2d(member, [E, F]);
    const expertOf = (x: tf.Tensor2D): tf.Tensor2D => matMul(x, member_EF, {transposeB: true});
    const choose = (router_DE: tf.Tensor2D, bias_E: tf.Tensor, up_DE = tf.zerosLike(router_DE)): Choice => [
      router_DE,
      up_DE,
      tf.add(bias_E, tf.tensor1d(never)) as tf.Tensor1D,
      member_EF,
      tf.tensor1d(shared),
      tf.tensor1d(last),
    ];
    const {gate, up} = denseFfn(walk.read().ffn);
    if (options.router === 'representative') {
      const one_EF = tf.oneHot(tf.tensor1d(paddedRepresentatives(plan, E), 'int32'), F).toFloat() as tf.Tensor2D;
      const unitColumns = (x_DF: tf.Tensor2D): tf.Tensor2D => {
        const picked_DE = matMul(x_DF, one_EF, {transposeB: true});
        return tf.div(picked_DE, tf.maximum(tf.norm(picked_DE, 'euclidean', 0), TINY));
      };
      return choose(unitColumns(gate), tf.zeros([E]), unitColumns(up));
    }
    if (!sums) return choose(tf.div(expertOf(gate), plan.experts[0]?.length ?? 1), tf.zeros([E]));
    // Regression is linear: what is foreseen of an expert is the sum of what is foreseen of its neurons.
    const {weight_DF, intercept_F} = fitActivity(sums);
    return choose(expertOf(weight_DF), tf.reshape(expertOf(tf.reshape(intercept_F, [1, F])), [E]));
  });
}

interface Grams {
  /** MᵀM of the masked activations M, [F, F]. */
  readonly mm_FF: tf.Tensor2D;
  /** MᵀY with Y what the layer should give, [F, D]. */
  readonly my_FD: tf.Tensor2D;
  /** |M·Wd - Y|² and |dense output|². */
  readonly error: number;
  readonly size: number;
}

/** Adds up the normal equations over all text, and takes the dense hidden states through the layer. */
async function addGrams({walk, converted, functions}: Fitting, choice: Choice): Promise<Grams> {
  let [mm_FF, my_FD, error, size]: [tf.Tensor | null, tf.Tensor | null, number, number] = [null, null, 0, 0];
  for (const [b, batch] of walk.batches.entries()) {
    const inputs = [hiddenTensor(walk, converted[b] as Float32Array), hiddenTensor(walk, batch)] as const;
    const result = await functions.grams(...inputs, ...choice);
    batch.set(await result.dense_TD.data());
    error += (await result.error.data())[0] ?? 0;
    size += (await result.size.data())[0] ?? 0;
    const before = [mm_FF, my_FD];
    mm_FF = mm_FF ? tf.add(mm_FF, result.mm_FF) : result.mm_FF.clone();
    my_FD = my_FD ? tf.add(my_FD, result.my_FD) : result.my_FD.clone();
    tf.dispose([...inputs, ...before.filter((one) => one !== null), ...Object.values(result)]);
  }
  return {mm_FF, my_FD, error, size} as Grams;
}

/**
 * `(MᵀM + λm) W = MᵀY + λm Wd` with m the mean diagonal of MᵀM; disposes the sums.
 *
 * Matrices of F² numbers are let go before the next is made. The peak is in the solve, 28 bytes for each: the matrix, and
 * in float64 the same, the copy that is factored and the factor.
 */
function refit({mm_FF, my_FD}: Grams, down_FD: tf.Tensor2D, weight: number): tf.Tensor2D {
  const F = mm_FF.shape[0];
  const held = tf.tidy(() =>
    tf.mul(tf.mean(tf.stridedSlice(tf.reshape(mm_FF, [F * F]), [0], [F * F], [F + 1])), weight),
  );
  const left_FF = tf.tidy(() => tf.add(mm_FF, tf.mul(tf.eye(F), held)) as tf.Tensor2D);
  mm_FF.dispose();
  const solved = tf.tidy(() => choleskySolve(left_FF, tf.add(my_FD, tf.mul(down_FD, held)) as tf.Tensor2D));
  tf.dispose([held, left_FF, my_FD, down_FD]);
  return solved;
}

/** Takes the converted hidden states through the layer; returns how far they are from the walk's, squared. */
async function advance({walk, converted, functions}: Fitting, down_FD: tf.Tensor2D, choice: Choice): Promise<number> {
  let error = 0;
  for (const [b, batch] of converted.entries()) {
    const inputs = [hiddenTensor(walk, batch), hiddenTensor(walk, walk.batches[b] as Float32Array)] as const;
    const result = await functions.advance(...inputs, down_FD, ...choice);
    batch.set(await result.next_TD.data());
    error += (await result.error.data())[0] ?? 0;
    tf.dispose([...inputs, ...Object.values(result)]);
  }
  return error;
}

/** Compiles what fitting runs on a walk. */
export function compileFit(walk: Walk, options: FitOptions) {
  const masked = (scope: LayerScope, x_TD: tf.Tensor2D, choice: Choice) => {
    const {h_TD, y_TD} = throughAttention(x_TD, scope.params, walk.architecture, scope.context);
    const {gate, up} = denseFfn(scope.params.ffn);
    const hidden_TF = swiglu(matMul(y_TD, gate), matMul(y_TD, up));
    return {h_TD, m_TF: tf.mul(hidden_TF, neuronWeights(y_TD, choice, options)) as tf.Tensor2D};
  };
  return {
    sums: compileSums(walk),
    grams: walk.compile('refit_grams', (scope, x_TD: tf.Tensor2D, dense_TD: tf.Tensor2D, ...choice: Choice) => {
      const {h_TD, m_TF} = masked(scope, x_TD, choice);
      const {gate, up, down} = denseFfn(scope.params.ffn);
      const half = throughAttention(dense_TD, scope.params, walk.architecture, scope.context);
      const out_TD = matMul(swiglu(matMul(half.y_TD, gate), matMul(half.y_TD, up)), down);
      const next_TD = addFfn(half.h_TD, out_TD, scope.params, walk.architecture);
      const wanted_TD = tf.div(tf.sub(next_TD, h_TD), walk.architecture.multipliers.residual) as tf.Tensor2D;
      return {
        dense_TD: next_TD,
        mm_FF: matMul(m_TF, m_TF, {transposeA: true}),
        my_FD: matMul(m_TF, wanted_TD, {transposeA: true}),
        error: tf.sum(tf.square(tf.sub(matMul(m_TF, down), wanted_TD))),
        size: tf.sum(tf.square(out_TD)),
      };
    }),
    advance: walk.compile(
      'fitted_layer',
      (scope, x_TD: tf.Tensor2D, dense_TD: tf.Tensor2D, down_FD: tf.Tensor2D, ...choice: Choice) => {
        const {h_TD, m_TF} = masked(scope, x_TD, choice);
        const next_TD = addFfn(h_TD, matMul(m_TF, down_FD), scope.params, walk.architecture);
        return {
          next_TD,
          error: tf.sum(tf.square(tf.div(tf.sub(next_TD, dense_TD), walk.architecture.multipliers.residual))),
        };
      },
    ),
  };
}

/** What each token multiplies each neuron with: 1 if shared, the weight of its expert if that was chosen, else 0; [T, F]. */
function neuronWeights(
  y_TD: tf.Tensor2D,
  [router_DE, up_DE, bias_E, member_EF, shared_F, last_E]: Choice,
  {router, weights}: FitOptions,
): tf.Tensor2D {
  const logit_TE = tf.add(routerLogits(y_TD, router_DE, router === 'representative' ? up_DE : null), bias_E);
  const sorted_TE = tf.topk(logit_TE, logit_TE.shape[1]).values;
  const least_T1 = tf.sum(tf.mul(sorted_TE, last_E), 1, true);
  const chosen_TE = tf.mul(tf.cast(tf.greaterEqual(logit_TE, least_T1), 'float32'), tf.max(last_E));
  const weight_TE = weights === 'one' ? chosen_TE : tf.mul(chosen_TE, tf.softmax(logit_TE as tf.Tensor2D));
  return tf.add(matMul(weight_TE as tf.Tensor2D, member_EF), shared_F);
}

/** Representatives of a layer's experts; experts that it does not have get the first neuron, and are never chosen. */
function paddedRepresentatives({representatives = new Int32Array(0)}: LayerPlan, E: number): Int32Array {
  const padded = new Int32Array(E);
  padded.set(representatives);
  return padded;
}

function denseDown(walk: Walk): tf.Tensor2D {
  return tf.tidy(() => denseFfn(walk.read().ffn).down);
}
