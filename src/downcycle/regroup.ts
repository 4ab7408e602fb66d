// Neurons dealt out anew by what a fitted router chooses: an expert is to hold what is active while it is chosen.
// Shapes: T tokens, D width, F neurons, E the most experts a layer has.
import * as tf from '../engine/tfjs.js';
import {throughAttention} from '../model/decoder.js';
import {gluHidden} from '../model/glu.js';
import {hiddenTensor, startWalk, type Walk} from '../model/walk.js';
import {compileLayer, passLayer} from '../model/walk-layer.js';
import {matMul} from '../op/mat-mul.js';
import {TINY} from '../op/tiny.js';
import {optimalAssignment} from './assignment.js';
import type {Calibration} from './calibration.js';
import {type ChoiceSizes, choiceSizes, chosenExperts, expertRouter, lastChosen, memberOf} from './fit-choice.js';
import type {DenseSource} from './model-source.js';
import {type ConversionPlan, type LayerPlan, realExperts, validatePlan} from './plan.js';
import {compileSums, sumActivity} from './predicted-activity.js';
import {type ActivitySums, fitSums} from './ridge.js';
import {addTo} from './statistics.js';
import {denseFfn} from './watch.js';

/**
 * Goes through the dense model layer by layer; in each round a ridge router chooses on the calibration text, and an
 * optimal assignment gives each routed neuron to the expert during whose choice it is most active.
 *
 * Activity is |h_i|·|Wd_i| over the mean of the token's, so that no token outweighs the others. Counts, widths, shared
 * neurons and those of zeros stay as they are. The engine must have been started.
 */
export async function regroup(
  {folder, architecture}: DenseSource,
  calibration: Calibration,
  plan: ConversionPlan,
  rounds: number,
): Promise<ConversionPlan> {
  const walk = await startWalk(folder, architecture, calibration);
  const sizes = choiceSizes(plan);
  const functions = compileRegroup(walk);
  try {
    const layers: LayerPlan[] = [];
    for (const [layer, planned] of plan.layers.entries()) {
      await walk.load(layer);
      layers.push(await regroupLayer({walk, functions, sizes}, planned, rounds));
      await passLayer(walk, functions.next);
    }
    const regrouped = {...plan, layers};
    validatePlan(regrouped);
    return regrouped;
  } finally {
    walk.dispose();
  }
}

interface Regrouping {
  readonly walk: Walk;
  readonly functions: ReturnType<typeof compileRegroup>;
  readonly sizes: ChoiceSizes;
}

async function regroupLayer(regrouping: Regrouping, planned: LayerPlan, rounds: number): Promise<LayerPlan> {
  if (planned.topK >= planned.experts.length) return planned; // nothing is chosen
  const {walk, functions, sizes} = regrouping;
  const activity = await sumActivity(walk, functions.sums, walk.batches, sizes.numNeurons);
  let plan = planned;
  for (let round = 0; round < rounds; round++) {
    plan = {...plan, experts: dealOut(plan, await activeWhileChosen(regrouping, plan, activity), sizes)};
  }
  return plan;
}

/** How active each neuron is on the tokens that choose each expert, summed over the text; [E, F]. */
async function activeWhileChosen(
  {walk, functions, sizes}: Regrouping,
  plan: LayerPlan,
  activity: ActivitySums,
): Promise<Float64Array> {
  const total_EF = new Float64Array(sizes.mostExperts * sizes.numNeurons);
  const router = tf.tidy(() => {
    const foreseen = expertRouter(fitSums(activity, memberOf(plan, sizes)), plan);
    return {...foreseen, last_E: lastChosen(plan, sizes.mostExperts)};
  });
  try {
    for (const batch of walk.batches) {
      const x_TD = hiddenTensor(walk, batch);
      const active_EF = await functions.active(x_TD, router.router_DE, router.bias_E, router.last_E);
      addTo(total_EF, (await active_EF.data()) as Float32Array);
      tf.dispose([x_TD, active_EF]);
    }
    return total_EF;
  } finally {
    tf.dispose(router);
  }
}

/** The routed neurons, so that their activity under the choice of their experts is most in all; widths stay. */
function dealOut(plan: LayerPlan, active_EF: Float64Array, sizes: ChoiceSizes): Int32Array[] {
  const {numNeurons: F, padding} = sizes;
  const {experts} = plan;
  const real = realExperts(plan, sizes);
  const routed = real.flatMap((ids) => [...ids]).sort((a, b) => a - b);
  const cost_NE = new Float64Array(routed.length * experts.length);
  for (const [n, neuron] of routed.entries()) {
    for (let e = 0; e < experts.length; e++) cost_NE[n * experts.length + e] = -(active_EF[e * F + neuron] as number);
  }
  const {groupOf_N} = optimalAssignment({cost_NE, capacity_E: real.map((ids) => ids.length)});
  return experts.map((ids, e) => {
    const zeros = ids.filter((id) => id >= F - padding);
    return Int32Array.from([...routed.filter((_neuron, n) => groupOf_N[n] === e), ...zeros]);
  });
}

function compileRegroup(walk: Walk) {
  return {
    sums: compileSums(walk),
    active: walk.compile(
      'active_while_chosen',
      (
        {params, context},
        x_TD: tf.Tensor2D,
        router_DE: tf.Tensor2D,
        bias_E: tf.Tensor1D,
        last_E: tf.Tensor1D,
      ): tf.Tensor2D => {
        const {y_TD} = throughAttention(x_TD, params, walk.architecture, context);
        const ffn = denseFfn(params.ffn);
        const a_TF = tf.mul(tf.abs(gluHidden(y_TD, ffn)), tf.norm(ffn.down, 'euclidean', 1));
        const relative_TF = tf.div(a_TF, tf.add(tf.mean(a_TF, 1, true), TINY)) as tf.Tensor2D;
        const logit_TE = tf.add(matMul(y_TD, router_DE), bias_E) as tf.Tensor2D;
        return matMul(chosenExperts(logit_TE, last_E), relative_TF, {transposeA: true});
      },
    ),
    next: compileLayer(walk),
  };
}
