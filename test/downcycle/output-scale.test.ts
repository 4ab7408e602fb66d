import {describe, expect} from 'vitest';
import {convert, planOf} from '../../src/downcycle/convert.js';
import {methodSchema, type SplitOptions} from '../../src/downcycle/options.js';
import {measureRoutedScale} from '../../src/downcycle/output-scale.js';
import type {ConversionPlan} from '../../src/downcycle/plan.js';
import {decode} from '../../src/model/decoder.js';
import {glu} from '../../src/model/glu.js';
import {loadModel, type Model} from '../../src/model/model.js';
import {moe} from '../../src/model/moe.js';
import {mapTree} from '../../src/model/parameters.js';
import {ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, writeTinyLlama} from '../model/tiny-llama.js';
import {onEngine, onEveryEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();
const sequences = [
  [1, 5, 9, 2, 7, 3, 11, 4],
  [8, 6, 10, 1, 2, 2, 9, 30],
];
const text = {tokens: Int32Array.from(sequences.flat()), sequenceLength: 8};

const methodOf = (words: object): SplitOptions =>
  methodSchema.parse({experts: 4, shared: 2, topK: 2, outputScale: 'match', ...words}) as SplitOptions;

/** Squared norms, by layer, of what routed neurons give in the dense model and in the mixture on the same input. */
function routedNorms(dense: Model, mixture: Model): {dense: number; routed: number}[] {
  const sums = dense.architecture.ffn.map(() => ({dense: 0, routed: 0}));
  const denseParams = mapTree(dense.parameters, (variable) => variable.read());
  const params = mapTree(mixture.parameters, (variable) => variable.read());
  const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
    const [whole, cut] = [denseParams.layers[layer]!.ffn, params.layers[layer]!.ffn];
    const layout = mixture.architecture.ffn[layer]!;
    if (whole.kind !== 'dense' || cut.kind !== 'moe' || layout.kind !== 'moe') throw new Error('not a cut layer');
    const shared = glu(x_TD, cut.shared!);
    const norm = (y: tf.Tensor): number => tf.sum(tf.square(tf.sub(y, shared))).dataSync()[0]!;
    sums[layer]!.dense += norm(glu(x_TD, whole));
    sums[layer]!.routed += norm(moe(x_TD, cut, layout, mixture.architecture.routing, 'dropless').y_TD);
  };
  for (const sequence of sequences) {
    const token_BS = tf.tensor2d(sequence, [1, sequence.length], 'int32');
    decode(denseParams, dense.architecture, {token_BS}, {onFfnInput});
  }
  return sums;
}

/** Measures the factors, converts with them, and compares what the routed neurons give. */
async function expectMatched(words: object): Promise<ConversionPlan> {
  const method = methodOf(words);
  const how = {model: TINY_LLAMA, method, seed: 3, profile: await tinyProfile()};
  const plan = await planOf(how);
  const routedScale = await measureRoutedScale(TINY_LLAMA, plan, text, how);
  expect(routedScale.every((scale) => scale > 1)).toBe(true); // softmax weights of 2 of 4 sum to less than 1
  await convert({...how, plan, routedScale, out: scratch('moe')});
  const [dense, mixture] = [await loadModel(TINY_LLAMA), await loadModel(scratch('moe'))];
  tf.tidy(() => {
    for (const norms of routedNorms(dense, mixture)) expect(norms.routed / norms.dense).toBeCloseTo(1, 4);
  });
  dense.dispose();
  mixture.dispose();
  return plan;
}

describe('outputScale match', () => {
  for (const method of ['expertweaver', 'random']) {
    onEveryEngine(`gives the routed sum the norm of the same neurons in the dense model (${method})`, async () => {
      await expectMatched({method});
    });
  }

  for (const router of ['random', 'mlp']) {
    onEngine('wasm', `does so under a router that is drawn (${router})`, async () => {
      await expectMatched({method: 'contiguous', router});
    });
  }

  for (const router of ['gate-mean', 'mlp']) {
    onEngine('wasm', `does so where layers have different numbers of experts (${router})`, async () => {
      const adaptive = {allocation: 'adaptive', cvThreshold: 2, alphaMin: 0, alphaMax: 0.9};
      const {layers} = await expectMatched({method: 'expertweaver', ...adaptive, topK: 3, router});
      expect(layers[0]!.experts).not.toHaveLength(layers[1]!.experts.length);
    });
  }

  onEngine('wasm', 'refuses a layer whose routed experts give nothing, by name', async () => {
    const model = await writeTinyLlama(scratch('dead'), {zeroed: 'model.layers.1.mlp.down_proj.weight'});
    const how = {model, method: methodOf({method: 'contiguous'}), seed: 1};
    const measured = measureRoutedScale(model, await planOf(how), text, how);
    await expect(measured).rejects.toThrow(ModelError);
    await expect(measured).rejects.toThrow(/layer 1 give a squared norm of 0/);
  });
});
