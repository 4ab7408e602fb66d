// What the routed experts give, against what the same neurons gave in the dense model: `outputScale: match`.
import * as tf from '@tensorflow/tfjs';
import {compile} from '../engine/compile.js';
import {SOFTMAX_ROUTING} from '../model/architecture.js';
import {decode} from '../model/decoder.js';
import {loadModel, type Model} from '../model/model.js';
import {type GluTree, mapTree, type RouterTree} from '../model/parameters.js';
import {route, routerLogits} from '../model/router.js';
import {matMul} from '../op/mat-mul.js';
import {swiglu} from '../op/swiglu.js';
import {untaped} from '../op/untaped.js';
import {ModelError} from '../util/errors.js';
import {drawRouter, type RouterDraw} from './drawn-router.js';
import {type ConversionPlan, type LayerPlan, neuronMap} from './plan.js';

/**
 * One factor a layer that gives the routed sum the norm it had in the dense model:
 * `sqrt(Σ_t |routed dense part|² / Σ_t |Σ_k p_k · expert_k|²)` over the tokens of some sequences.
 *
 * Softmax weights that are not renormalised (ExpertWeaver, eq. 13) sum to less than one, and unchosen experts give
 * nothing, so that the cut model starts far from its parent. Only the dense model is run: a neuron's share in the routed
 * sum is the weight of its expert. The engine must have been started.
 * @param draw what draws the routers; without it they are the means of gate rows.
 * @throws ModelError if a layer's routed experts give nothing.
 */
export async function measureRoutedScale(
  path: string,
  plan: ConversionPlan,
  sequences: readonly (readonly number[])[],
  draw: RouterDraw | null = null,
): Promise<number[]> {
  const model = await loadModel(path);
  const run = compileSums(model, plan, draw);
  try {
    const sums = plan.layers.map(() => ({dense: 0, routed: 0}));
    for (const sequence of sequences) {
      const values = await valuesOn(run, sequence);
      for (const [layer, sum] of sums.entries()) {
        sum.dense += values[2 * layer] ?? 0;
        sum.routed += values[2 * layer + 1] ?? 0;
      }
    }
    return sums.map(({dense, routed}, layer) => factor(dense, routed, path, layer));
  } finally {
    run.dispose();
    model.dispose();
  }
}

function factor(dense: number, routed: number, path: string, layer: number): number {
  const scale = Math.sqrt(dense / routed);
  if (Number.isFinite(scale) && scale > 0) return scale;
  throw new ModelError(
    `${path}: the routed experts of layer ${layer} give a squared norm of ${routed}, the same neurons in the dense model ${dense}: there is no factor between them.`,
    {hint: 'Set outputScale to none, or calibrate on other text.'},
  );
}

/** `token_BS → [dense, routed]` of each layer, one after another: squared norms over all positions. */
function compileSums({architecture, parameters}: Model, plan: ConversionPlan, draw: RouterDraw | null) {
  const {layers, numNeurons} = plan;
  const drawn = layers.map(({experts}, layer) => draw && drawRouter(draw, architecture, layer, experts.length));
  return compile(
    (token_BS: tf.Tensor2D) => {
      const params = mapTree(parameters, (variable) => variable.read());
      const sums: tf.Tensor[] = [];
      const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
        const [ffn, plan] = [params.layers[layer]?.ffn, layers[layer]];
        if (ffn?.kind !== 'dense' || !plan) throw new Error(`layer ${layer} is not dense, or has no plan`);
        const router = drawn[layer] ?? null;
        const expertOf_F = neuronMap(plan, numNeurons, layer).subarray(0, ffn.down.shape[0]); // padding gives nothing
        sums.push(...untaped(() => squaredNorms(x_TD, ffn, {...plan, router}, expertOf_F)));
      };
      decode(params, architecture, {token_BS}, {onFfnInput});
      return {sums: tf.stack(sums)};
    },
    {name: 'output_scale'},
  );
}

/** Of the routed neurons together, and of the chosen experts weighted as the mixture weights them. */
function squaredNorms(
  x_TD: tf.Tensor2D,
  {gate, up, down}: GluTree<tf.Tensor>,
  {experts, topK, router}: LayerPlan & {readonly router: RouterTree<Float32Array> | null},
  expertOf_F: Int32Array,
): tf.Tensor[] {
  const E = experts.length;
  const member_FE: tf.Tensor2D = oneHot(tf.tensor1d(expertOf_F, 'int32'), E); // the row of a shared neuron is zero
  const gate_TF = matMul(x_TD, gate as tf.Tensor2D);
  const h_TF = swiglu(gate_TF, matMul(x_TD, up as tf.Tensor2D));
  const width = experts[0]?.length ?? 1;
  const logit_TE: tf.Tensor2D = router
    ? routerLogits(x_TD, routerTensors(router, E))
    : tf.div(matMul(gate_TF, member_FE), width); // x · the mean of the experts' gate rows
  const {expert_TK, weight_TK} = route(logit_TE, null, topK, SOFTMAX_ROUTING);
  const weight_TE = tf.sum(tf.mul(oneHot(expert_TK, E), tf.expandDims(weight_TK, -1)), 1) as tf.Tensor2D;
  const weights = [tf.sum(member_FE, 1), matMul(weight_TE, member_FE, {transposeB: true})];
  return weights.map((weight) => tf.sum(tf.square(matMul(tf.mul(h_TF, weight) as tf.Tensor2D, down as tf.Tensor2D))));
}

function routerTensors({router, routerOut}: RouterTree<Float32Array>, E: number): RouterTree<tf.Tensor> {
  const matrix = (values: Float32Array): tf.Tensor => tf.tensor2d(values, [values.length / E, E]);
  return {router: matrix(router), routerUp: null, routerOut: routerOut && matrix(routerOut)};
}

function oneHot<T extends tf.Tensor>(index: tf.Tensor, depth: number): T {
  return tf.cast(tf.oneHot(index, depth), 'float32') as T;
}

async function valuesOn(
  run: (token_BS: tf.Tensor2D) => Promise<{sums: tf.Tensor}>,
  sequence: readonly number[],
): Promise<ArrayLike<number>> {
  const token_BS = tf.tensor2d([...sequence], [1, sequence.length], 'int32');
  try {
    const {sums} = await run(token_BS);
    const values = await sums.data();
    sums.dispose();
    return values;
  } finally {
    token_BS.dispose();
  }
}
