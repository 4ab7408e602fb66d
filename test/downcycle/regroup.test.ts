import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {startFit} from '../../src/downcycle/fit.js';
import {openDense} from '../../src/downcycle/model-source.js';
import {readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {padDense} from '../../src/downcycle/padding.js';
import {contiguousSplit} from '../../src/downcycle/partition/contiguous.js';
import {appendZeros} from '../../src/downcycle/partition/cut.js';
import type {ConversionPlan, LayerPlan} from '../../src/downcycle/plan.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {regroup} from '../../src/downcycle/regroup.js';
import {decode} from '../../src/model/decoder.js';
import {loadModel} from '../../src/model/model.js';
import {mapTree} from '../../src/model/parameters.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';
import {J, lotCalibration, S} from './lot-calibration.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const [D, F, E] = [16, 24, 4];

function planOf(topK: number): ConversionPlan {
  const layers = [0, 1].map(() => ({...contiguousSplit(F, {experts: E, shared: 2, topK}), topK}));
  return {method: 'contiguous', numNeurons: F, padding: 0, layers, allocation: []};
}

async function regrouped(plan: ConversionPlan, rounds: number): Promise<ConversionPlan> {
  const source = await openDense(TINY_LLAMA);
  try {
    return await regroup(source, lotCalibration, plan, rounds);
  } finally {
    await source.folder.close();
  }
}

/** Activity of every neuron over the mean of its token's, and input of the FFN, in the dense model; a pair for each layer. */
async function watch(): Promise<{x: number[][]; relative: number[][]}[]> {
  const model = await loadModel(TINY_LLAMA);
  const params = mapTree(model.parameters, (variable) => variable.read());
  const seen: {x: number[][]; relative: number[][]}[] = [];
  const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
    const ffn = params.layers[layer]!.ffn;
    if (ffn.kind !== 'dense') throw new Error('not dense');
    const gate = tf.matMul(x_TD, ffn.gate as tf.Tensor2D);
    const h_TF = tf.mul(tf.mul(gate, tf.sigmoid(gate)), tf.matMul(x_TD, ffn.up as tf.Tensor2D));
    const activity_TF = tf.mul(tf.abs(h_TF), tf.norm(ffn.down, 'euclidean', 1));
    const relative_TF = tf.div(activity_TF, tf.mean(activity_TF, 1, true)) as tf.Tensor2D;
    seen.push({x: x_TD.arraySync(), relative: relative_TF.arraySync()});
  };
  decode(params, model.architecture, {token_BS: tf.tensor2d(lotCalibration.tokens, [J, S], 'int32')}, {onFfnInput});
  model.dispose();
  return seen;
}

/** Router of the first layer as conversion fits it, where the converted hidden states are still those of the dense model. */
async function ridgeRouter(plan: ConversionPlan): Promise<(x_D: number[]) => number[]> {
  const source = await openDense(TINY_LLAMA);
  const options = {router: 'ridge', seed: 1, refits: false, refitWeight: 1, weights: 'one'} as const;
  const fit = await startFit(source, lotCalibration, plan, options);
  const {router_ED, bias_E} = await fit.layer(0);
  fit.dispose();
  await source.folder.close();
  return (x_D) =>
    Array.from({length: E}, (_, e) => x_D.reduce((sum, x, d) => sum + x * router_ED[e * D + d]!, bias_E![e]!));
}

/** Σ over tokens that choose expert e of the relative activity of neuron i, [E][F]. */
async function activeWhileChosen(plan: ConversionPlan): Promise<number[][]> {
  const logits = await ridgeRouter(plan);
  const {x, relative} = (await watch())[0]!;
  const active = Array.from({length: E}, () => new Array<number>(F).fill(0));
  for (const [t, x_D] of x.entries()) {
    const logit_E = logits(x_D);
    const order = logit_E.map((_, e) => e).sort((a, b) => logit_E[b]! - logit_E[a]!);
    for (const e of order.slice(0, plan.layers[0]!.topK)) {
      for (let i = 0; i < F; i++) active[e]![i]! += relative[t]![i]!;
    }
  }
  return active;
}

function total({experts}: LayerPlan, active: number[][]): number {
  return experts.reduce((sum, ids, e) => sum + ids.reduce((part, i) => part + active[e]![i]!, 0), 0);
}

describe('regrouping', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'puts each neuron where it is most active while its expert is chosen', async () => {
      const plan = planOf(2);
      const layer = (await regrouped(plan, 1)).layers[0]!;
      const active = await activeWhileChosen(plan);
      const reached = total(layer, active);
      expect(reached).toBeGreaterThan(1.05 * total(plan.layers[0]!, active));
      for (const [a, first] of layer.experts.entries()) {
        for (const [b, second] of layer.experts.entries()) {
          for (const i of a < b ? first : []) {
            for (const j of second) {
              const gain = active[b]![i]! + active[a]![j]! - active[a]![i]! - active[b]![j]!;
              expect(gain).toBeLessThan(1e-3); // no two neurons would rather change places
            }
          }
        }
      }
    });
  }

  onEngine('tensorflow-compiled', 'keeps what is shared, how wide experts are and how many are chosen', async () => {
    const plan = planOf(2);
    const {layers, ...rest} = await regrouped(plan, 3);
    const {layers: before, ...same} = plan;
    expect(rest).toEqual(same);
    for (const [l, layer] of layers.entries()) {
      expect(layer.shared).toEqual(before[l]!.shared);
      expect(layer.topK).toBe(2);
      expect(layer.experts.map((ids) => ids.length)).toEqual([4, 4, 4, 4]);
      expect(layer.experts).not.toEqual(before[l]!.experts);
      expect([...layer.shared, ...layer.experts.flatMap((ids) => [...ids])].sort((a, b) => a - b)).toEqual(
        Array.from({length: F}, (_, i) => i),
      );
    }
  });

  onEngine('tensorflow-compiled', 'leaves neurons of zeros where they are', async () => {
    const shape = {experts: E, shared: 3, topK: 2}; // 7 chunks of 4, and so 4 zeros, one in each expert
    const layers = [0, 1].map(() => appendZeros(contiguousSplit(F, shape), F, shape));
    const plan: ConversionPlan = {method: 'contiguous', numNeurons: F + 4, padding: 4, layers, allocation: []};
    const source = await openDense(TINY_LLAMA);
    const {layers: after} = await regroup(padDense(source, 4), lotCalibration, plan, 3);
    await source.folder.close();
    for (const [l, {shared, experts}] of after.entries()) {
      expect(shared).toEqual(layers[l]!.shared);
      expect(experts).not.toEqual(layers[l]!.experts);
      expect(experts.map((ids) => ids.filter((id) => id >= F))).toEqual(
        [F, F + 1, F + 2, F + 3].map((id) => Int32Array.of(id)),
      );
      expect(experts.flatMap((ids) => [...ids]).sort((a, b) => a - b)).toEqual(
        layers[l]!.experts.flatMap((ids) => [...ids]).sort((a, b) => a - b),
      );
    }
  });

  onEngine('tensorflow-compiled', 'has nothing to do where every expert is chosen', async () => {
    const plan = planOf(4);
    expect(await regrouped(plan, 3)).toEqual(plan);
  });

  onEngine('tensorflow-compiled', 'does not depend on the order in which experts stand', async () => {
    const plan = planOf(2);
    const turned = {...plan, layers: plan.layers.map((one) => ({...one, experts: [...one.experts].reverse()}))};
    const [found, other] = [await regrouped(plan, 2), await regrouped(turned, 2)];
    expect(other.layers.map(({experts}) => [...experts].reverse())).toEqual(found.layers.map(({experts}) => experts));
  });

  onEngine('tensorflow-compiled', 'leaves no tensor behind', () =>
    expectNoLeak(async () => {
      await regrouped(planOf(2), 2);
    }),
  );
});

describe('a conversion that regroups', () => {
  const counts = {experts: E, shared: 2, topK: 2};

  onEngine('wasm', 'records the neurons where they went, and equals its parent with all experts', async () => {
    const method = splitOptions({method: 'contiguous', ...counts, regroup: 2});
    await convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1, calibration: lotCalibration});
    const plan = await regrouped(planOf(2), 2);
    const maps = await readNeuronMaps(scratch('moe'));
    for (const [l, {experts}] of plan.layers.entries()) {
      for (const [e, ids] of experts.entries()) for (const i of ids) expect(maps[l]![i]).toBe(e);
    }
    expect(await readProvenance(scratch('moe'))).toMatchObject({method: {regroup: 2}});
    const {proveConversion} = await import('../../src/downcycle/proof.js');
    const sequences = [0, 1].map((j) => [...lotCalibration.tokens.subarray(j * S, (j + 1) * S)]);
    expect(await proveConversion(TINY_LLAMA, scratch('moe'), sequences)).toMatchObject({passed: true});
  });

  it('needs text', async () => {
    const method = splitOptions({method: 'contiguous', ...counts, regroup: 1});
    await expect(convert({model: TINY_LLAMA, out: scratch('moe'), method, seed: 1})).rejects.toThrow(
      'convert: regroup, router ridge, router centroid and repair refit need calibration text, none was given.',
    );
  });

  it('has no representatives left', () => {
    expect(() => splitOptions({method: 'cmoe', ...counts, regroup: 1})).toThrow('representative needs regroup 0');
    expect(() => splitOptions({method: 'cmoe', ...counts, router: 'ridge', regroup: 1})).not.toThrow();
  });
});
