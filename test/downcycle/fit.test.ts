import * as tf from '@tensorflow/tfjs';
import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {type FitOptions, type FittedLayer, startFit} from '../../src/downcycle/fit.js';
import {type DenseSource, openDense} from '../../src/downcycle/model-source.js';
import {contiguousSplit} from '../../src/downcycle/partition/contiguous.js';
import type {ConversionPlan} from '../../src/downcycle/plan.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {loadModel} from '../../src/model/model.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {lotCalibration as calibration, S} from './lot-calibration.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const shape = {experts: 4, shared: 2, topK: 2};
const refit: FitOptions = {router: 'gate-mean', seed: 1, refits: true, refitWeight: 1e-3, weights: 'one'};

function planOf(topK: number): ConversionPlan {
  const layers = [0, 1].map(() => ({...contiguousSplit(24, shape), topK}));
  return {method: 'contiguous', numNeurons: 24, padding: 0, layers, allocation: []};
}

async function fitted(plan: ConversionPlan, options: FitOptions): Promise<FittedLayer[]> {
  return withSource(async (source) => {
    const fit = await startFit(source, calibration, plan, options);
    try {
      return [await fit.layer(0), await fit.layer(1)];
    } finally {
      fit.dispose();
    }
  });
}

async function withSource<T>(use: (source: DenseSource) => Promise<T>): Promise<T> {
  const source = await openDense(TINY_LLAMA);
  try {
    return await use(source);
  } finally {
    await source.folder.close();
  }
}

function denseDown(layer: number): Promise<Float32Array> {
  return withSource(({folder}) => folder.tensors.read(`model.layers.${layer}.mlp.down_proj.weight`));
}

describe('a repair by least squares', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'brings every layer nearer to the dense one', async () => {
      for (const {error} of await fitted(planOf(2), refit)) {
        expect(error!.before).toBeGreaterThan(0.01);
        expect(error!.after).toBeLessThan(0.8 * error!.before);
      }
    });

    onEngine(engine, 'leaves alone what is right already: all experts active', async () => {
      for (const [l, {error, down_DF}] of (await fitted(planOf(4), refit)).entries()) {
        expect(error!.before).toBeLessThan(1e-10);
        expect(down_DF!).toBeAllClose(await denseDown(l), {rtol: 1e-3, atol: 1e-3});
      }
    });
  }

  onEngine('tensorflow-compiled', 'stays at the dense weights where it is held to them', async () => {
    const [first] = await fitted(planOf(2), {...refit, refitWeight: 1e6});
    expect(first!.down_DF!).toBeAllClose(await denseDown(0), {rtol: 1e-3, atol: 1e-4});
  });

  onEngine('tensorflow-compiled', 'solves its normal equations: no other weights are better', async () => {
    const [first] = await fitted(planOf(2), {...refit, refitWeight: 1e-6});
    const [held] = await fitted(planOf(2), {...refit, refitWeight: 0.5});
    expect(first!.error!.after).toBeLessThanOrEqual(held!.error!.after * (1 + 1e-5));
  });

  onEngine('tensorflow-compiled', 'leaves no tensor behind', () =>
    expectNoLeak(async () => {
      await fitted(planOf(2), refit);
    }),
  );
});

describe('a fitted router', () => {
  onEngine('tensorflow-compiled', 'foresees more of what experts do than the mean of their gates', async () => {
    const [ridge] = await fitted(planOf(2), {...refit, router: 'ridge', refits: false});
    const [mean] = await fitted(planOf(2), {...refit, refits: false});
    expect(ridge!.router_ED).toHaveLength(mean!.router_ED.length);
    expect(mean!.bias_E).toBeNull();
    expect(ridge!.bias_E).toHaveLength(4);
    expect(await activityChosen(ridge!)).toBeGreaterThan(await activityChosen(mean!));
  });
});

/** Mean over tokens of the activity of the two experts that a router chooses in the first layer. */
async function activityChosen({router_ED, bias_E}: FittedLayer): Promise<number> {
  const model = await loadModel(TINY_LLAMA);
  const {decode} = await import('../../src/model/decoder.js');
  const {mapTree} = await import('../../src/model/parameters.js');
  const params = mapTree(model.parameters, (variable) => variable.read());
  const ffn = params.layers[0]!.ffn;
  if (ffn.kind !== 'dense') throw new Error('not dense');
  let chosen = 0;
  const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
    if (layer > 0) return;
    const gate = tf.matMul(x_TD, ffn.gate as tf.Tensor2D);
    const h_TF = tf.mul(tf.mul(gate, tf.sigmoid(gate)), tf.matMul(x_TD, ffn.up as tf.Tensor2D));
    const activity_TF = tf.mul(tf.abs(h_TF), tf.norm(ffn.down, 'euclidean', 1));
    const plan = planOf(2).layers[0]!;
    const activity_TE = tf.stack(
      plan.experts.map((ids) => tf.sum(tf.gather(activity_TF, ids, 1), 1)),
      1,
    );
    const logit_TE = tf.add(
      tf.matMul(x_TD, tf.tensor2d(router_ED, [4, 16]), false, true),
      tf.tensor1d(bias_E ?? new Float32Array(4)),
    );
    const mask_TE = tf.sum(tf.oneHot(tf.topk(logit_TE, 2).indices, 4), 1);
    chosen = tf.mean(tf.sum(tf.mul(activity_TE, mask_TE), 1)).dataSync()[0]!;
  };
  decode(params, model.architecture, {token_BS: tf.tensor2d(calibration.tokens, [8, S], 'int32')}, {onFfnInput});
  model.dispose();
  return chosen;
}

describe('a fitted conversion', () => {
  const counts = {experts: 4, shared: 2, topK: 2, router: 'ridge', repair: 'refit', weights: 'one'};

  onEngine('tensorflow-compiled', 'writes what was fitted, and the model computes what the fit saw', async () => {
    const method = splitOptions({method: 'contiguous', ...counts, repairWeight: 1e-3});
    await convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1, calibration});
    const [first] = await fitted(planOf(2), {...refit, router: 'ridge'});
    const tensors = await openTensors(scratch('moe'));
    expect(await tensors.read('model.layers.0.mlp.gate.weight')).toBeAllClose(first!.router_ED, {atol: 1e-5});
    expect(await tensors.read('model.layers.0.mlp.gate.e_score_correction_bias')).toBeAllClose(first!.bias_E!, {
      atol: 1e-5,
    });
    await tensors.close();
    const {layers, equivalence} = (await readProvenance(scratch('moe'))) as Extract<
      Awaited<ReturnType<typeof readProvenance>>,
      {kind: 'split'}
    >;
    expect(equivalence).toBeNull();
    expect(layers[0]!.error!.after).toBeCloseTo(first!.error!.after, 5);
    expect(await distance(scratch('moe'))).toBeLessThan(0.9 * (await distanceUnrepaired()));
  });

  async function distanceUnrepaired(): Promise<number> {
    const method = splitOptions({method: 'contiguous', ...counts, repair: 'none'});
    await convert({model: TINY_LLAMA, out: scratch('plain'), method, seed: 1, calibration});
    return distance(scratch('plain'));
  }

  onEngine('tensorflow-compiled', 'of all shared neurons is a dense layer of fewer', async () => {
    const method = splitOptions({method: 'all-shared', experts: 4, shared: 2, topK: 2, repair: 'refit'});
    const {tinyProfile} = await import('./tiny-profile.js');
    const profile = await tinyProfile();
    const {architecture} = await convert({
      model: TINY_LLAMA,
      out: scratch('moe'),
      method,
      seed: 1,
      calibration,
      profile,
    });
    expect(architecture.ffn).toEqual([
      {kind: 'dense', width: 16},
      {kind: 'dense', width: 16},
    ]);
    const model = await loadModel(scratch('moe'));
    expect(model.architecture.ffn).toEqual(architecture.ffn);
    model.dispose();
  });

  it('needs text to fit on', async () => {
    const method = splitOptions({method: 'contiguous', ...counts});
    await expect(convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1})).rejects.toThrow(
      'convert: regroup, router ridge, router centroid and repair refit need calibration text, none was given.',
    );
  });
});

/** Squared distance of a model's logits to those of its parent on the calibration text. */
async function distance(folder: string): Promise<number> {
  const rows = Array.from({length: 8}, (_, j) => [...calibration.tokens.subarray(j * S, (j + 1) * S)]);
  const [dense, moe] = [await loadModel(TINY_LLAMA), await loadModel(folder)];
  const [expected, received] = [await logitsOf(dense, rows), await logitsOf(moe, rows)];
  dense.dispose();
  moe.dispose();
  return expected.reduce((sum, value, i) => sum + (value - received[i]!) ** 2, 0);
}
