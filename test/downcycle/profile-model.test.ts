import {readdir, writeFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {beforeAll, describe, expect, it} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {openDense} from '../../src/downcycle/model-source.js';
import type {Profile} from '../../src/downcycle/profile-file.js';
import {profileText} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {removeProgress, saveProgress} from '../../src/downcycle/profile-progress.js';
import {markerCounts} from '../../src/downcycle/statistics.js';
import {startEngine} from '../../src/engine/start.js';
import {addFfn, attentionContext, finalHidden, throughAttention} from '../../src/model/decoder.js';
import {loadModel} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {embed} from '../../src/op/embedding.js';
import {linearCrossEntropy} from '../../src/op/linear-cross-entropy.js';
import {matMul} from '../../src/op/mat-mul.js';
import {silu} from '../../src/op/swiglu.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import * as tf from '../support/tfjs.js';
import {GOLDENS, hasGoldens, layerOf, readIds, readTensors} from './golden.js';

const scratch = useScratch();
const S = 16;
const calibration: Calibration = textOf(Int32Array.from({length: 6 * S}, numberBelow(32)), S, 3);

function numberBelow(bound: number): () => number {
  const rng = createRng(1, 'tokens');
  return () => rng.int(bound);
}

function textOf(tokens: Int32Array, sequenceLength: number, numTasks: number): Calibration {
  const samples = tokens.length / sequenceLength;
  return {
    tokens,
    sequenceLength,
    tasks: Array.from({length: numTasks}, (_, task) => `task ${task}`),
    taskOfSample_J: Int32Array.from({length: samples}, (_, j) => Math.floor((j * numTasks) / samples)),
    hash: 'h',
  };
}

async function profile(
  model: string,
  text: Calibration,
  settings: Parameters<typeof profileSchema.parse>[0] = {},
  partial = scratch('partial'),
): Promise<Profile> {
  const source = await openDense(model);
  try {
    return await profileText(source, text, {profile: profileSchema.parse(settings), partial});
  } finally {
    await source.folder.close();
  }
}

interface Activity {
  readonly gate: tf.Tensor;
  readonly h: tf.Tensor;
  /** Gradient of the summed loss for h. */
  readonly g: tf.Tensor;
  /** Hidden states after the layer. */
  readonly next: tf.Tensor;
}

/** One forward and backward pass over the whole model, on one tape. */
async function wholePass(path: string, {tokens, sequenceLength}: Calibration): Promise<Activity[]> {
  const model = await loadModel(path);
  const {architecture} = model;
  const params = mapTree(model.parameters, (variable) => variable.read());
  const batch = tokens.length / sequenceLength;
  const context = attentionContext(architecture, batch, sequenceLength);
  const label = tf.tensor1d(
    tokens.map((_, i) => ((i + 1) % sequenceLength === 0 ? -1 : tokens[i + 1]!)),
    'int32',
  );
  const found: Omit<Activity, 'g'>[] = [];
  const loss = (...probes: tf.Tensor[]): tf.Scalar => {
    found.length = 0;
    let x = embed(params.embed as tf.Tensor2D, tf.tensor1d(tokens, 'int32'));
    params.layers.forEach((layer, l) => {
      if (layer.ffn.kind !== 'dense') throw new Error('not dense');
      const {h_TD, y_TD} = throughAttention(x, layer, architecture, context);
      const gate = silu(matMul(y_TD, layer.ffn.gate as tf.Tensor2D));
      const h = tf.mul(gate, matMul(y_TD, layer.ffn.up as tf.Tensor2D));
      x = addFfn(
        h_TD,
        matMul(tf.add(h, probes[l]!) as tf.Tensor2D, layer.ffn.down as tf.Tensor2D),
        layer,
        architecture,
      );
      found.push({gate: tf.keep(gate.clone()), h: tf.keep(h.clone()), next: tf.keep(x.clone())});
    });
    const hidden = finalHidden(x, params.norm, architecture);
    const mean = linearCrossEntropy(hidden, (params.head ?? params.embed) as tf.Tensor2D, label);
    return tf.mul(mean, batch * (sequenceLength - 1));
  };
  const widths = architecture.ffn.map((layout) => (layout.kind === 'dense' ? layout.width : 0));
  const gradients = tf.grads(loss)(widths.map((width) => tf.zeros([tokens.length, width])));
  return found.map((one, l) => ({...one, g: gradients[l]!}));
}

beforeAll(async () => {
  await startEngine();
});

/** Hidden states that fit the text, as a profile that goes on would take them. */
async function hiddenStates(): Promise<Float32Array[]> {
  const {architecture, folder} = await openDense(TINY_LLAMA);
  await folder.close();
  return [new Float32Array(calibration.tokens.length * architecture.width)];
}

describe('a profile', () => {
  it('holds what the activations of a whole forward pass say', async () => {
    const {layers} = await profile(TINY_LLAMA, calibration, {markers: {count: 3, of: 'plain'}});
    const expected = await wholePass(TINY_LLAMA, calibration);
    for (const [l, layer] of layers.entries()) {
      const {gate, h} = expected[l]!;
      const F = layer.numNeurons;
      const mean = (x: tf.Tensor) => Array.from(tf.mean(tf.reshape(x, [6, S, F]), 1).dataSync());
      expect(layer.gateMean_JF).toBeAllClose(mean(gate), {atol: 1e-5});
      expect(layer.hMean_JF).toBeAllClose(mean(h), {atol: 1e-5});
      expect(layer.hSquare_JF).toBeAllClose(mean(tf.square(h)), {atol: 1e-5});
      expect(layer.gateMagnitude_F).toBeAllClose(Array.from(tf.mean(tf.abs(gate), 0).dataSync()), {atol: 1e-5});
      expect(layer.hMagnitude_F).toBeAllClose(Array.from(tf.mean(tf.abs(h), 0).dataSync()), {atol: 1e-5});
      expect(Array.from(layer.marker_NM)).toEqual(Array.from(tf.topk(tf.abs(h), 3).indices.dataSync()));
      expect(markerCounts(layer).reduce((sum, count) => sum + count, 0)).toBe(6 * S * 3);
    }
  });

  it('holds the gradient of the loss for every neuron, whatever is kept in memory', async () => {
    const {layers} = await profile(TINY_LLAMA, calibration, {gradients: true, markers: {count: 2}});
    const expected = await wholePass(TINY_LLAMA, calibration);
    for (const [l, {gradients}] of layers.entries()) {
      const {h, g} = expected[l]!;
      const importance = tf.mean(tf.abs(tf.mul(h, g)), 0).dataSync();
      const sensitivity = tf.mean(tf.square(tf.mul(tf.sub(h, tf.mean(h, 0)), g)), 0).dataSync();
      expect(gradients?.importance_F).toBeAllClose(Array.from(importance), {rtol: 1e-3, atol: 1e-6});
      expect(gradients?.sensitivity_F).toBeAllClose(Array.from(sensitivity), {rtol: 1e-3, atol: 1e-6});
    }
  });

  it('that was stopped goes on after its last kept layer, and is the same', async () => {
    const partial = scratch('partial');
    const whole = await profile(TINY_LLAMA, calibration);
    const [first, ...rest] = whole.layers;
    // What stands in the kept layer is taken as it is: that shows that it was not made again.
    const marked = {...first!, gateMean_JF: first!.gateMean_JF.map(() => 7)};
    const [{next} = {next: tf.zeros([0])}] = await wholePass(TINY_LLAMA, calibration);
    const hidden = Float32Array.from(next.dataSync());
    await saveProgress(partial, {layers: [marked], metadata: whole.metadata, hidden: [hidden]});
    const resumed = await profile(TINY_LLAMA, calibration, {}, partial);
    expect(resumed.layers[0]!.gateMean_JF).toEqual(marked.gateMean_JF);
    resumed.layers.slice(1).forEach(({gateMean_JF}, l) => {
      expect(gateMean_JF).toBeAllClose(rest[l]!.gateMean_JF, {atol: 1e-5});
    });
  });

  it('that was stopped reads on what was foreseen of its neurons', async () => {
    const partial = scratch('partial');
    const whole = await profile(TINY_LLAMA, calibration, {predictors: true});
    const [{next} = {next: tf.zeros([0])}] = await wholePass(TINY_LLAMA, calibration);
    const hidden = [Float32Array.from(next.dataSync())];
    const kept = new Float32Array(whole.metadata.model.ffnWidth * 3).fill(7);
    const first = {...whole.layers[0]!, predicted: {numColumns: 3, read: () => Promise.resolve(kept)}};
    await saveProgress(partial, {layers: [first], metadata: whole.metadata, hidden});
    const {layers} = await profile(TINY_LLAMA, calibration, {predictors: true}, partial);
    expect(await layers[0]!.predicted!.read()).toEqual(kept);
    const [one, other] = [layers[1]!.predicted!, whole.layers[1]!.predicted!];
    expect(one.numColumns).toBe(other.numColumns);
    expect(await one.read()).toBeAllClose(Array.from(await other.read()), {atol: 1e-4});
  });

  it('takes away what it kept when it is told to, and nothing else', async () => {
    const partial = scratch('kept/partial');
    const {layers, metadata} = await profile(TINY_LLAMA, calibration, {predictors: true}, partial);
    await saveProgress(partial, {layers, metadata, hidden: []});
    await writeFile(scratch('kept/other'), '');
    expect((await readdir(dirname(partial))).length).toBe(3);
    await removeProgress(partial);
    expect(await readdir(dirname(partial))).toEqual(['other']);
    await expect(layers[0]!.predicted!.read()).rejects.toThrow('there is no such file');
  });

  it('begins anew where what was kept is of other text or settings', async () => {
    const partial = scratch('partial');
    const whole = await profile(TINY_LLAMA, calibration);
    const metadata = {...whole.metadata, tokenHash: 'of other text'};
    await saveProgress(partial, {layers: [whole.layers[1]!], metadata, hidden: await hiddenStates()});
    expect((await profile(TINY_LLAMA, calibration, {}, partial)).layers).toEqual(whole.layers);
  });
});

describe.skipIf(!hasGoldens).each([
  {name: 'tiny_llama', model: 'tiny_llama', layers: 3},
  {name: 'stories260k', model: 'stories260k/model', layers: 5},
])('golden numbers of $name', ({name, model, layers: numLayers}) => {
  const golden = hasGoldens ? readTensors(`${GOLDENS}/expertweaver/${name}.safetensors`) : {};
  const ids = hasGoldens
    ? readIds(`${GOLDENS}/expertweaver/${name}.safetensors`, 'calibration_ids')
    : new Int32Array(0);

  it('signed means of the gates', async () => {
    const {layers} = await profile(join(GOLDENS, model), textOf(ids, 48, 8));
    for (const [l, {gateMean_JF}] of layers.entries()) {
      expect(gateMean_JF).toBeAllClose(layerOf(golden.gate_mean!, l, numLayers), {rtol: 0, atol: 1e-5});
    }
  });

  it.each(['plain', 'normalised'] as const)('how often each neuron is marked, %s', async (of) => {
    const {layers} = await profile(join(GOLDENS, model), textOf(ids, 48, 8), {markers: {count: 10, of}});
    const expected = readIds(`${GOLDENS}/cmoe/${name}.safetensors`, `${of}.counts`);
    const F = layers[0]!.numNeurons;
    for (const [l, layer] of layers.entries()) {
      const counts = markerCounts(layer);
      const off = Array.from(counts, (count, i) => Math.abs(count - expected[l * F + i]!));
      expect(Math.max(...off)).toBeLessThanOrEqual(1);
      expect(off.filter((one) => one > 0).length).toBeLessThanOrEqual(4); // a token or two, two neurons each
    }
  });
});
