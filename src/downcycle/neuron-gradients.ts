// What the loss says of each FFN neuron: one pass forwards and one backwards, layer by layer.

import {compile} from '../engine/compile.js';
import * as tf from '../engine/tfjs.js';
import {createVariable} from '../engine/variable.js';
import {addFfn, finalHidden, throughAttention} from '../model/decoder.js';
import {gluHidden} from '../model/glu.js';
import {readParameter} from '../model/load.js';
import {parameterSpecs} from '../model/parameters.js';
import {hiddenTensor, type LayerFunction, startWalk, type Walk} from '../model/walk.js';
import {compileLayer, type PlainLayer, passLayer} from '../model/walk-layer.js';
import {linearCrossEntropy} from '../op/linear-cross-entropy.js';
import {matMul} from '../op/mat-mul.js';
import {valueAndGradients} from '../op/value-and-gradients.js';
import type {Calibration} from './calibration.js';
import type {DenseSource} from './model-source.js';
import type {ProfileProgress} from './profile-model.js';
import {addTo, columnMeans, type LayerProfile, type NeuronGradients} from './statistics.js';
import {denseFfn} from './watch.js';

/** Bytes of hidden states that are kept for the way back; more text goes in several rounds. */
const KEPT_BYTES = 2 ** 28;

/** A compiled function of hidden states. */
type HiddenFunction<Inputs extends readonly tf.Tensor[]> = LayerFunction<Inputs, Readonly<Record<string, tf.Tensor>>>;

interface Functions {
  readonly forward: PlainLayer;
  readonly backward: HiddenFunction<[tf.Tensor2D, tf.Tensor2D, tf.Tensor1D]>;
  readonly head: HiddenFunction<[tf.Tensor2D, tf.Tensor1D]>;
}

interface Sums {
  readonly importance_F: Float64Array;
  readonly sensitivity_F: Float64Array;
}

/**
 * Importance and sensitivity of every neuron of every layer; see {@link NeuronGradients}.
 *
 * Each sample's tokens predict the next one of the same sample. The engine must have been started.
 * @param layers profile of the same text: the mean of h is taken from it.
 */
export async function neuronGradients(
  {folder, architecture}: DenseSource,
  calibration: Calibration,
  layers: readonly LayerProfile[],
  onProgress?: ProfileProgress,
): Promise<NeuronGradients[]> {
  const walk = await startWalk(folder, architecture, calibration);
  const sums = layers.map(({numNeurons}) => ({
    importance_F: new Float64Array(numNeurons),
    sensitivity_F: new Float64Array(numNeurons),
  }));
  try {
    const head = await compileHead(walk, folder);
    const functions = {forward: compileLayer(walk), backward: compileBackward(walk), head};
    const batchBytes = (walk.batches[0]?.byteLength ?? 0) * layers.length;
    const perRound = Math.max(1, Math.floor(KEPT_BYTES / batchBytes));
    for (let begin = 0; begin < walk.batches.length; begin += perRound) {
      const round = {begin, end: Math.min(begin + perRound, walk.batches.length)};
      await addRound({walk, functions, calibration, layers, sums}, round);
      onProgress?.('taking gradients', round.end, walk.batches.length);
    }
  } finally {
    walk.dispose();
  }
  const mean = (sum_F: Float64Array): Float32Array =>
    Float32Array.from(sum_F, (sum) => sum / calibration.tokens.length);
  return sums.map(({importance_F, sensitivity_F}) => ({
    importance_F: mean(importance_F),
    sensitivity_F: mean(sensitivity_F),
  }));
}

interface Pass {
  readonly walk: Walk;
  readonly functions: Functions;
  readonly calibration: Calibration;
  readonly layers: readonly LayerProfile[];
  readonly sums: readonly Sums[];
}

/** Forwards with the inputs of every layer kept, then backwards; adds up what some batches say. */
async function addRound(pass: Pass, {begin, end}: {readonly begin: number; readonly end: number}): Promise<void> {
  const {walk, functions, layers} = pass;
  const batches = walk.batches.slice(begin, end);
  const inputs: Float32Array[][] = [];
  for (let layer = 0; layer < layers.length; layer++) {
    await walk.load(layer);
    inputs.push(batches.map((batch) => batch.slice()));
    await passLayer(walk, functions.forward, batches);
  }
  for (const [b, batch] of batches.entries()) {
    const labels = labelsOf(pass.calibration, walk.batchSize, begin + b);
    batch.set((await run(functions.head, [hiddenTensor(walk, batch), tf.tensor1d(labels, 'int32')])).dx_TD ?? []);
  }
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    await walk.load(layer);
    for (const [b, batch] of batches.entries()) await addLayer(pass, layer, inputs[layer]?.[b], batch);
    inputs.pop();
  }
}

async function addLayer(
  {walk, functions, layers, sums}: Pass,
  layer: number,
  input: Float32Array = new Float32Array(0),
  dy: Float32Array,
): Promise<void> {
  const {hMean_JF = new Float32Array(0), numNeurons = 0} = layers[layer] ?? {};
  const mean_F = tf.tensor1d(Float32Array.from(columnMeans(hMean_JF, numNeurons)));
  const result = await run(functions.backward, [hiddenTensor(walk, input), hiddenTensor(walk, dy), mean_F]);
  dy.set(result.dx_TD ?? []);
  for (const key of ['importance_F', 'sensitivity_F'] as const) {
    const sum_F = sums[layer]?.[key];
    if (sum_F) addTo(sum_F, result[key] ?? new Float32Array(0));
  }
}

async function run<Inputs extends readonly tf.Tensor[]>(
  fn: HiddenFunction<Inputs>,
  inputs: Inputs,
): Promise<Readonly<Record<string, Float32Array>>> {
  const results = await fn(...inputs);
  try {
    const entries = Object.entries(results).map(
      async ([name, tensor]) => [name, await tensor.data<'float32'>()] as const,
    );
    return Object.fromEntries(await Promise.all(entries));
  } finally {
    tf.dispose([...inputs, ...Object.values(results)]);
  }
}

/** The next token of each position; the last of a sample predicts none. */
function labelsOf({tokens, sequenceLength}: Calibration, batchSize: number, batch: number): Int32Array {
  const size = batchSize * sequenceLength;
  return Int32Array.from({length: size}, (_, i) =>
    (i + 1) % sequenceLength === 0 ? -1 : (tokens[batch * size + i + 1] as number),
  );
}

function compileBackward(walk: Walk): Functions['backward'] {
  return walk.compile(
    'layer_backward',
    ({params, context}, x_TD: tf.Tensor2D, dy_TD: tf.Tensor2D, mean_F: tf.Tensor1D) => {
      const ffn = denseFfn(params.ffn);
      const probe_TF = tf.zeros([x_TD.shape[0], mean_F.size]);
      const {report, gradients} = valueAndGradients(
        ([x = x_TD, probe = probe_TF]) => {
          const {h_TD, y_TD} = throughAttention(x as tf.Tensor2D, params, walk.architecture, context);
          const h_TF = gluHidden(y_TD, ffn);
          const next_TD = addFfn(h_TD, matMul(tf.add(h_TF, probe) as tf.Tensor2D, ffn.down), params, walk.architecture);
          return {loss: tf.sum(tf.mul(next_TD, dy_TD)), report: [h_TF]};
        },
        [x_TD, probe_TF],
      );
      const [h_TF, [dx_TD, g_TF]] = [report[0] as tf.Tensor2D, gradients as [tf.Tensor2D, tf.Tensor2D]];
      return {
        dx_TD,
        importance_F: tf.sum(tf.abs(tf.mul(h_TF, g_TF)), 0),
        sensitivity_F: tf.sum(tf.square(tf.mul(tf.sub(h_TF, mean_F), g_TF)), 0),
      };
    },
  );
}

/** The gradient of the summed loss for the hidden states after the last layer. */
async function compileHead(walk: Walk, folder: DenseSource['folder']): Promise<Functions['head']> {
  const {architecture} = walk;
  const specs = parameterSpecs(architecture);
  const load = async (spec: typeof specs.embed) =>
    walk.own(createVariable(spec.path, spec.shape, await readParameter(folder, architecture, spec)));
  const norm = specs.norm && (await load(specs.norm));
  const table = await load(specs.head ?? specs.embed);
  const head = (x_TD: tf.Tensor2D, label_T: tf.Tensor1D) => {
    const count = tf.sum(tf.cast(tf.greaterEqual(label_T, 0), 'float32'));
    const {gradients} = valueAndGradients(
      ([x = x_TD]) => {
        const normed_TD = finalHidden(x as tf.Tensor2D, norm?.read() ?? null, architecture);
        const mean = linearCrossEntropy(normed_TD, table.read() as tf.Tensor2D, label_T);
        return {loss: tf.mul(mean, count), report: []};
      },
      [x_TD],
    );
    return {dx_TD: gradients[0] as tf.Tensor};
  };
  return walk.own(compile(head, {name: 'head_backward'}));
}
