// What a conversion learns from calibration text, layer by layer and with the converted layers before it in place: routers,
// and down projections by least squares. Shapes: T tokens, D width, F neurons, E the most experts a layer has.
import * as tf from '../engine/tfjs.js';
import {addFfn, throughAttention} from '../model/decoder.js';
import {gluHidden} from '../model/glu.js';
import {hiddenTensor, type LayerScope, startWalk, type Walk} from '../model/walk.js';
import {choleskySolve, type LowerPanels, lowerSquare} from '../op/cholesky.js';
import {matMul} from '../op/mat-mul.js';
import {ModelError} from '../util/errors.js';
import type {Calibration} from './calibration.js';
import {
  type Choice,
  type ChoiceInput,
  type ChoiceOptions,
  choiceSizes,
  chooseBy,
  compileChoice,
  neuronWeights,
} from './fit-choice.js';
import type {DenseSource} from './model-source.js';
import type {ConversionPlan} from './plan.js';
import {denseFfn} from './watch.js';

/** What is fitted. */
export interface FitOptions extends ChoiceOptions {
  /** Whether down projections are fitted to what the dense model computes. */
  readonly refits: boolean;
  /** How much a fitted down projection is held to the dense one: λ in `λ · mean diag(MᵀM) · |W - Wd|²`. */
  readonly refitWeight: number;
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

/** Starts fitting; the engine must have been started. */
export async function startFit(
  {folder, architecture}: DenseSource,
  calibration: Calibration,
  conversion: ConversionPlan,
  options: FitOptions,
): Promise<Fit> {
  const walk = await startWalk(folder, architecture, calibration);
  // The converted model sees the same text; its hidden states part from the dense ones layer by layer.
  const converted = walk.batches.map((batch) => batch.slice());
  const sizes = choiceSizes(conversion);
  const functions = compileFit(walk, options);
  let [next, last]: [number, FittedLayer | null] = [0, null];
  return {
    layer: async (index) => {
      if (last && index === next - 1) return last;
      const plan = conversion.layers[index];
      if (!plan || index !== next) throw new Error(`layer ${index} is fitted out of turn`);
      last = null; // let go before the next one is made: it has a whole down projection
      await walk.load(index);
      last = await fitLayer({walk, layer: index, plan, converted, functions, options, sizes});
      walk.release();
      next++;
      return last;
    },
    dispose: () => walk.dispose(),
  };
}

interface Fitting extends Omit<ChoiceInput, 'functions'> {
  readonly functions: ReturnType<typeof compileFit>;
  readonly options: FitOptions;
}

async function fitLayer(fitting: Fitting): Promise<FittedLayer> {
  const {walk, plan, options} = fitting;
  const choice = await chooseBy({...fitting, functions: fitting.functions.choice});
  const [router_DE, , , bias_E] = choice;
  try {
    const grams = options.refits ? await addGrams(fitting, choice) : null;
    const down_FD = grams ? await refitOn(fitting, grams) : denseDown(walk);
    const after = await advance(fitting, down_FD, choice);
    const [D, E] = [walk.architecture.width, plan.experts.length];
    const fitted: FittedLayer = {
      router_ED: (await transposed(router_DE)).slice(0, E * D),
      bias_E: options.router === 'ridge' ? Float32Array.from(await bias_E.data()).slice(0, E) : null,
      down_DF: grams && (await transposed(down_FD)),
      error: grams && {before: grams.error / grams.size, after: after / grams.size},
    };
    tf.dispose(down_FD);
    requireFinite(fitted, fitting.layer);
    return fitted;
  } finally {
    tf.dispose(choice);
  }
}

/** @throws ModelError if a solution is not made of finite numbers. */
function requireFinite({router_ED, bias_E, down_DF}: FittedLayer, layer: number): void {
  if ([router_ED, bias_E, down_DF].every((values) => values?.every(Number.isFinite) ?? true)) return;
  throw new ModelError(`The router or down projection fitted for layer ${layer} is not made of finite numbers.`, {
    hint: 'Calibrate on more tokens, or raise repairWeight.',
  });
}

async function transposed(x: tf.Tensor2D): Promise<Float32Array> {
  const turned = tf.transpose(x);
  const values = (await turned.data()) as Float32Array;
  turned.dispose();
  return values;
}

interface Grams {
  /** The lower half of MᵀM, [F, F], with M the masked activations as the equations have them. */
  readonly mm: LowerPanels;
  /** MᵀY with Y what the layer should give, [F, D]. */
  readonly my_FD: tf.Tensor2D;
  /** Squares of how far the layer is from the dense one with its down projection, and of what that one adds. */
  readonly error: number;
  readonly size: number;
}

/** Adds up the normal equations over all text, and takes the dense hidden states through the layer. */
async function addGrams({walk, converted, functions}: Fitting, choice: Choice): Promise<Grams> {
  let [sums, error, size]: [readonly tf.Tensor2D[] | null, number, number] = [null, 0, 0];
  for (const [b, batch] of walk.batches.entries()) {
    const inputs = [hiddenTensor(walk, converted[b] as Float32Array), hiddenTensor(walk, batch)] as const;
    const {mm, my_FD, ...result} = await functions.grams(...inputs, ...choice);
    batch.set(await result.dense_TD.data());
    error += (await result.error.data())[0] ?? 0;
    size += (await result.size.data())[0] ?? 0;
    tf.dispose([...inputs, ...Object.values(result)]);
    sums = sums ? addUp(sums, [my_FD, ...mm]) : [my_FD, ...mm];
  }
  const [my_FD, ...mm] = sums ?? [];
  if (!my_FD) throw new Error('there is no text to fit to');
  return {mm, my_FD, error, size};
}

/** Sums of tensors one by one; disposes both parts of each as soon as it is there. */
function addUp(sums: readonly tf.Tensor2D[], parts: readonly tf.Tensor2D[]): tf.Tensor2D[] {
  return sums.map((sum, i) => {
    const part = parts[i] as tf.Tensor2D;
    const total = tf.add(sum, part) as tf.Tensor2D;
    tf.dispose([sum, part]);
    return total;
  });
}

/** {@link refit} of the loaded layer, whose weights make room for it meanwhile. */
async function refitOn({walk, layer, options, sizes}: Fitting, grams: Grams): Promise<tf.Tensor2D> {
  const dense_FD = denseDown(walk);
  walk.release();
  const down_FD = await refit(grams, dense_FD, options.refitWeight, sizes.numNeurons - sizes.padding);
  await walk.load(layer);
  return down_FD;
}

/**
 * `(MᵀM + λm) W = MᵀY + λm Wd` with m the mean diagonal of MᵀM over the `numReal` neurons that are not padding, whose own is
 * zero; disposes what it is given.
 */
async function refit({mm, my_FD}: Grams, down_FD: tf.Tensor2D, weight: number, numReal: number): Promise<tf.Tensor2D> {
  const trace = tf.tidy(() => tf.sum(tf.concat1d(mm.map(diagonalOf))));
  const held = (((await trace.data())[0] as number) / numReal) * weight;
  const right_FD = tf.tidy(() => tf.add(my_FD, tf.mul(down_FD, held)) as tf.Tensor2D);
  tf.dispose([trace, my_FD, down_FD]);
  return choleskySolve(mm, right_FD, held);
}

/** The diagonal of a panel's upper block. */
function diagonalOf(panel: tf.Tensor2D): tf.Tensor1D {
  const [rows, width] = panel.shape;
  return tf.stridedSlice(tf.reshape(panel, [rows * width]), [0], [width * width], [width + 1]) as tf.Tensor1D;
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
    const hidden_TF = gluHidden(y_TD, denseFfn(scope.params.ffn));
    return {h_TD, m_TF: tf.mul(hidden_TF, neuronWeights(y_TD, choice, options)) as tf.Tensor2D};
  };
  const update = (to_TD: tf.Tensor2D, from_TD: tf.Tensor2D): tf.Tensor2D =>
    tf.div(tf.sub(to_TD, from_TD), walk.architecture.multipliers.residual);
  return {
    choice: compileChoice(walk),
    grams: walk.compile('refit_grams', (scope, x_TD: tf.Tensor2D, dense_TD: tf.Tensor2D, ...choice: Choice) => {
      const {h_TD, m_TF} = masked(scope, x_TD, choice);
      const ffn = denseFfn(scope.params.ffn);
      const half = throughAttention(dense_TD, scope.params, walk.architecture, scope.context);
      const out_TD = matMul(gluHidden(half.y_TD, ffn), ffn.down);
      const next_TD = addFfn(half.h_TD, out_TD, scope.params, walk.architecture);
      const kept_TD = addFfn(h_TD, matMul(m_TF, ffn.down), scope.params, walk.architecture);
      const {left_TF, right_TD} = equations(m_TF, out_TD, update(next_TD, h_TD), scope.params.ffnNorm, walk);
      return {
        dense_TD: next_TD,
        mm: lowerSquare(left_TF),
        my_FD: matMul(left_TF, right_TD, {transposeA: true}),
        error: tf.sum(tf.square(update(kept_TD, next_TD))),
        size: tf.sum(tf.square(update(next_TD, half.h_TD))),
      };
    }),
    advance: walk.compile(
      'fitted_layer',
      (scope, x_TD: tf.Tensor2D, dense_TD: tf.Tensor2D, down_FD: tf.Tensor2D, ...choice: Choice) => {
        const {h_TD, m_TF} = masked(scope, x_TD, choice);
        const next_TD = addFfn(h_TD, matMul(m_TF, down_FD), scope.params, walk.architecture);
        return {next_TD, error: tf.sum(tf.square(update(next_TD, dense_TD)))};
      },
    ),
  };
}

/**
 * Both sides of `left · W = right`, with W the down projection and `update_TD` what is to join the residual stream.
 *
 * Where an RMS norm of weight g comes between (OLMo 2) its divisor is taken for that of the dense layer's own result f, which
 * keeps the equations linear: `m / rms(f) · W = update / g`. Where g is next to nothing, so is what joins: there W gives what it
 * gave, for divided by g a small difference would become the largest number of the row.
 */
function equations(
  m_TF: tf.Tensor2D,
  f_TD: tf.Tensor2D,
  update_TD: tf.Tensor2D,
  g_D: tf.Tensor | null,
  {architecture: {norm, normEps}}: Walk,
): {left_TF: tf.Tensor2D; right_TD: tf.Tensor2D} {
  if (norm.placement === 'before' || !g_D) return {left_TF: m_TF, right_TD: update_TD};
  const inverse_T1 = tf.rsqrt(tf.add(tf.mean(tf.square(f_TD), -1, true), normEps));
  const least = tf.mul(tf.sqrt(tf.mean(tf.square(g_D))), LEAST_WEIGHT);
  const isNought_D = tf.less(tf.abs(g_D), least);
  const divided_TD = tf.div(update_TD, tf.where(isNought_D, tf.onesLike(g_D), g_D));
  return {
    left_TF: tf.mul(m_TF, inverse_T1),
    right_TD: tf.where(isNought_D, tf.mul(f_TD, inverse_T1), divided_TD) as tf.Tensor2D,
  };
}

/** Share of the root mean square of a norm's weights below which one counts as zero. */
const LEAST_WEIGHT = 0.05;

function denseDown(walk: Walk): tf.Tensor2D {
  return tf.tidy(() => denseFfn(walk.read().ffn).down);
}
