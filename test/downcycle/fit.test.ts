import {describe, expect, it} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {convert} from '../../src/downcycle/convert.js';
import {type FitOptions, type FittedLayer, startFit} from '../../src/downcycle/fit.js';
import {type DenseSource, openDense} from '../../src/downcycle/model-source.js';
import {contiguousSplit} from '../../src/downcycle/partition/contiguous.js';
import type {ConversionPlan} from '../../src/downcycle/plan.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {writeModelFolder} from '../../src/format/model-folder.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {decode} from '../../src/model/decoder.js';
import {loadModel} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import * as tf from '../support/tfjs.js';
import {lotCalibration as calibration, S} from './lot-calibration.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const shape = {experts: 4, shared: 2, topK: 2};
const refit: FitOptions = {router: 'gate-mean', seed: 1, refits: true, refitWeight: 1e-3, weights: 'one'};

/** Its FFN results are normed before they join the residual stream. */
const OLMO2 = 'test/fixtures/family/olmo2';

function planOf(topK: number, numNeurons = 24): ConversionPlan {
  const layers = [0, 1].map(() => ({...contiguousSplit(numNeurons, shape), topK}));
  return {method: 'contiguous', numNeurons, padding: 0, layers, allocation: []};
}

async function fitted(
  plan: ConversionPlan,
  options: FitOptions,
  text = calibration,
  model = TINY_LLAMA,
): Promise<FittedLayer[]> {
  return withSource(model, async (source) => {
    const fit = await startFit(source, text, plan, options);
    try {
      return [await fit.layer(0), await fit.layer(1)];
    } finally {
      fit.dispose();
    }
  });
}

async function withSource<T>(model: string, use: (source: DenseSource) => Promise<T>): Promise<T> {
  const source = await openDense(model);
  try {
    return await use(source);
  } finally {
    await source.folder.close();
  }
}

function denseDown(layer: number, model = TINY_LLAMA): Promise<Float32Array> {
  return withSource(model, ({folder}) => folder.tensors.read(`model.layers.${layer}.mlp.down_proj.weight`));
}

describe('a repair by least squares', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    for (const [kind, model, numNeurons] of [
      ['', TINY_LLAMA, 24],
      [', through a norm behind it', OLMO2, 48],
    ] as const) {
      onEngine(engine, `brings every layer nearer to the dense one${kind}`, async () => {
        for (const {error} of await fitted(planOf(2, numNeurons), refit, calibration, model)) {
          expect(error!.before).toBeGreaterThan(0.01);
          expect(error!.after).toBeLessThan(0.8 * error!.before);
        }
      });

      onEngine(engine, `leaves alone what is right already: all experts active${kind}`, async () => {
        for (const [l, {error, down_DF}] of (
          await fitted(planOf(4, numNeurons), refit, calibration, model)
        ).entries()) {
          expect(error!.before).toBeLessThan(1e-10);
          expect(down_DF!).toBeAllClose(await denseDown(l, model), {rtol: 1e-3, atol: 1e-3});
        }
      });
    }
  }

  onEngine(
    'tensorflow-compiled',
    'asks nothing new of a column of which the norm behind it leaves next to nothing',
    async () => {
      const model = scratch('column');
      await withSource(OLMO2, ({folder: {config, tensors}}) =>
        writeModelFolder(model, {
          config,
          entries: tensors.names.map((name) => ({name, dtype: 'F32', shape: tensors.info(name).shape})),
          read: async (name) => {
            const values = await tensors.read(name);
            return name === 'model.layers.0.post_feedforward_layernorm.weight'
              ? values.fill(0, 3, 4).fill(1e-3, 4, 5)
              : values;
          },
        }),
      );
      const [whole] = await fitted(planOf(4, 48), refit, calibration, model);
      expect(whole!.down_DF!).toBeAllClose(await denseDown(0, model), {rtol: 1e-3, atol: 1e-3});
      const [half] = await fitted(planOf(2, 48), refit, calibration, model);
      expect(half!.error!.after).toBeLessThan(0.8 * half!.error!.before);
    },
  );

  onEngine('tensorflow-compiled', 'stays at the dense weights where it is held to them', async () => {
    const [first] = await fitted(planOf(2), {...refit, refitWeight: 1e6});
    expect(first!.down_DF!).toBeAllClose(await denseDown(0), {rtol: 1e-3, atol: 1e-4});
  });

  onEngine('tensorflow-compiled', 'solves its normal equations: no other weights are better', async () => {
    const [first] = await fitted(planOf(2), {...refit, refitWeight: 1e-6});
    const [held] = await fitted(planOf(2), {...refit, refitWeight: 0.5});
    expect(first!.error!.after).toBeLessThanOrEqual(held!.error!.after * (1 + 1e-5));
  });

  onEngine(
    'tensorflow-compiled',
    'is held to the dense weights by its weight times the mean square of activations',
    async () => {
      const tokens = Int32Array.from({length: 40 * 128}, (_, i) => (i * 7 + (i >> 5)) % 32); // three batches and more
      const text = {...calibration, tokens, sequenceLength: 128, taskOfSample_J: new Int32Array(40)};
      const [first] = await fitted(planOf(2), {...refit, refitWeight: 0.3}, text);
      const masked_TF = await maskedHidden(text, first!.router_ED);
      const hidden_TF = await maskedHidden(text, null);
      const [down_DF, dense_DF, F] = [first!.down_DF!, await denseDown(0), 24];
      const mean = masked_TF.reduce((sum, value) => sum + value * value, 0) / F;
      // (MᵀM + λm) W' = MᵀY + λm Wd, whose two sides are compared; Y = H·Wd, since nothing before the layer is converted.
      for (let d = 0; d < 16; d += 5) {
        const [left, right] = [new Float64Array(F), new Float64Array(F)];
        for (let t = 0; t < tokens.length; t++) {
          const row = (values: Float64Array, of: Float32Array): number => {
            let sum = 0;
            for (let f = 0; f < F; f++) sum += values[t * F + f]! * of[d * F + f]!;
            return sum;
          };
          const [given, wanted] = [row(masked_TF, down_DF), row(hidden_TF, dense_DF)];
          for (let f = 0; f < F; f++) {
            left[f]! += masked_TF[t * F + f]! * given;
            right[f]! += masked_TF[t * F + f]! * wanted;
          }
        }
        for (let f = 0; f < F; f++) {
          left[f]! += 0.3 * mean * down_DF[d * F + f]!;
          right[f]! += 0.3 * mean * dense_DF[d * F + f]!;
        }
        const largest = Math.max(...right.map(Math.abs));
        expect(left).toBeAllClose(right, {rtol: 1e-4, atol: 1e-4 * largest});
      }
    },
  );

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
  const [hidden_TF, down_DF] = [await maskedHidden(calibration, router_ED, bias_E), await denseDown(0)];
  const norm_F = Array.from({length: 24}, (_, f) =>
    Math.hypot(...Array.from({length: 16}, (_, d) => down_DF[d * 24 + f]!)),
  );
  const routed = new Set(planOf(2).layers[0]!.experts.flatMap((ids) => [...ids]));
  const active = hidden_TF.map((h, i) => (routed.has(i % 24) ? Math.abs(h) * norm_F[i % 24]! : 0));
  return active.reduce((sum, value) => sum + value, 0) / (hidden_TF.length / 24);
}

/** h of the first layer, [T, F], those of experts that a router leaves out being zeros. */
async function maskedHidden(
  {tokens, sequenceLength}: Pick<Calibration, 'tokens' | 'sequenceLength'>,
  router_ED: Float32Array | null,
  bias_E: Float32Array | null = null,
): Promise<Float64Array> {
  const model = await loadModel(TINY_LLAMA);
  const params = mapTree(model.parameters, (variable) => variable.read());
  const ffn = params.layers[0]!.ffn;
  if (ffn.kind !== 'dense') throw new Error('not dense');
  const {experts, shared} = planOf(2).layers[0]!;
  let hidden = new Float64Array(0);
  const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
    if (layer > 0) return;
    const gate = tf.matMul(x_TD, ffn.gate as tf.Tensor2D);
    const h_TF = tf.mul(tf.mul(gate, tf.sigmoid(gate)), tf.matMul(x_TD, ffn.up as tf.Tensor2D));
    hidden = Float64Array.from(h_TF.dataSync());
    if (!router_ED) return;
    const logit_TE = tf.add(
      tf.matMul(x_TD, tf.tensor2d(router_ED, [4, 16]), false, true),
      tf.tensor1d(bias_E ?? new Float32Array(4)),
    );
    const chosen_TE = tf.sum(tf.oneHot(tf.topk(logit_TE, 2).indices, 4), 1).dataSync();
    const expertOf_F = Array.from({length: 24}, (_, f) => experts.findIndex((ids) => ids.includes(f)));
    hidden = hidden.map((h, i) => {
      const [t, f] = [Math.floor(i / 24), i % 24];
      return shared.includes(f) || chosen_TE[t * 4 + expertOf_F[f]!] === 1 ? h : 0;
    });
  };
  const token_BS = tf.tensor2d(tokens, [tokens.length / sequenceLength, sequenceLength], 'int32');
  tf.tidy(() => void decode(params, model.architecture, {token_BS}, {onFfnInput}));
  model.dispose();
  return hidden;
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
