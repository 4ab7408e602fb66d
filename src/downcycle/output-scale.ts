// What the routed experts give, against what the same neurons gave in the dense model: `outputScale: match`.
import * as tf from '../engine/tfjs.js';
import {addFfn, throughAttention} from '../model/decoder.js';
import {gluHidden} from '../model/glu.js';
import {hiddenTensor, startWalk, type Walk, type WalkText} from '../model/walk.js';
import {matMul} from '../op/mat-mul.js';
import {ModelError} from '../util/errors.js';
import {routerDraw} from './drawn-router.js';
import {type Choice, type ChoiceOptions, choiceSizes, chooseBy, compileChoice, neuronWeights} from './fit-choice.js';
import {openDense} from './model-source.js';
import type {SplitOptions} from './options.js';
import {padDense} from './padding.js';
import type {ConversionPlan} from './plan.js';
import {denseFfn} from './watch.js';

/**
 * One factor a layer that gives the routed sum the norm it had in the dense model:
 * `sqrt(Σ_t |routed dense part|² / Σ_t |Σ_k p_k · expert_k|²)` over the tokens of a text.
 *
 * Softmax weights that are not renormalised (ExpertWeaver, eq. 13) sum to less than one, and unchosen experts give
 * nothing, so that the cut model starts far from its parent. Only the dense model is run, one layer of it in memory: a
 * neuron's share in the routed sum is the weight of its expert. The engine must have been started.
 * @param how the method that the plan is of, and the seed: by them routers are drawn, or means of gate rows.
 * @throws ModelError if a layer's routed experts give nothing.
 */
export async function measureRoutedScale(
  path: string,
  plan: ConversionPlan,
  text: WalkText,
  {method, seed}: {readonly method: SplitOptions; readonly seed: number},
): Promise<number[]> {
  const dense = await openDense(path);
  try {
    const {folder, architecture} = padDense(dense, plan.padding);
    const walk = await startWalk(folder, architecture, text);
    const options: ChoiceOptions = {...(routerDraw(method, seed) ?? {router: 'gate-mean', seed}), weights: 'score'};
    const functions = {choice: compileChoice(walk), norms: compileNorms(walk, options)};
    try {
      const scales: number[] = [];
      for (let layer = 0; layer < plan.layers.length; layer++) {
        await walk.load(layer);
        scales.push(factor(await layerNorms({walk, functions, plan, options}, layer), path, layer));
      }
      return scales;
    } finally {
      walk.dispose();
    }
  } finally {
    await dense.folder.close();
  }
}

/** Squared norms over a text: of the routed neurons together, and of the chosen experts as the mixture weights them. */
interface Norms {
  readonly dense: number;
  readonly routed: number;
}

function factor({dense, routed}: Norms, path: string, layer: number): number {
  const scale = Math.sqrt(dense / routed);
  if (Number.isFinite(scale) && scale > 0) return scale;
  throw new ModelError(
    `${path}: the routed experts of layer ${layer} give a squared norm of ${routed}, the same neurons in the dense model ${dense}: there is no factor between them.`,
    {
      hint: Number.isNaN(scale)
        ? 'Set outputScale to none, or look for weights that are not finite.'
        : 'Set outputScale to none, or calibrate on other text.',
    },
  );
}

interface Measuring {
  /** At the layer. */
  readonly walk: Walk;
  readonly functions: {
    readonly choice: ReturnType<typeof compileChoice>;
    readonly norms: ReturnType<typeof compileNorms>;
  };
  readonly plan: ConversionPlan;
  readonly options: ChoiceOptions;
}

/** The norms of the loaded layer; takes the walk through it. */
async function layerNorms({walk, functions, plan, options}: Measuring, layer: number): Promise<Norms> {
  const planned = plan.layers[layer];
  if (!planned) throw new Error(`the plan has no layer ${layer}`);
  const choice = await chooseBy({
    walk,
    layer,
    plan: planned,
    converted: walk.batches,
    functions: functions.choice,
    options,
    sizes: choiceSizes(plan),
  });
  try {
    let [dense, routed] = [0, 0];
    for (const batch of walk.batches) {
      const x_TD = hiddenTensor(walk, batch);
      const result = await functions.norms(x_TD, ...choice);
      batch.set(await result.next_TD.data());
      dense += (await result.dense.data())[0] ?? 0;
      routed += (await result.routed.data())[0] ?? 0;
      tf.dispose([x_TD, ...Object.values(result)]);
    }
    return {dense, routed};
  } finally {
    tf.dispose(choice);
  }
}

function compileNorms(walk: Walk, options: ChoiceOptions) {
  return walk.compile('output_scale', ({params, context}, x_TD: tf.Tensor2D, ...choice: Choice) => {
    const {h_TD, y_TD} = throughAttention(x_TD, params, walk.architecture, context);
    const ffn = denseFfn(params.ffn);
    const h_TF = gluHidden(y_TD, ffn);
    const [, , , , member_EF, shared_F] = choice;
    const squaredNorm = (weight: tf.Tensor): tf.Tensor =>
      tf.sum(tf.square(matMul(tf.mul(h_TF, weight) as tf.Tensor2D, ffn.down)));
    return {
      next_TD: addFfn(h_TD, matMul(h_TF, ffn.down), params, walk.architecture),
      dense: squaredNorm(tf.sum(member_EF, 0)),
      routed: squaredNorm(tf.sub(neuronWeights(y_TD, choice, options), shared_F)),
    };
  });
}
