// Logits, FFN outputs and choices of both golden models cut along the stored partition.

import {describe, expect, it} from 'vitest';
import {splitArchitecture} from '../../src/downcycle/convert.js';
import {writeMoe} from '../../src/downcycle/convert-source.js';
import {openDense} from '../../src/downcycle/model-source.js';
import {representative} from '../../src/downcycle/partition/cmoe.js';
import type {ConversionPlan, LayerPlan} from '../../src/downcycle/plan.js';
import {currentVersions} from '../../src/downcycle/provenance.js';
import {splitFfn} from '../../src/downcycle/split-ffn.js';
import {unwatched} from '../../src/downcycle/statistics.js';
import {type Architecture, type Routing, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {loadModel, type Model} from '../../src/model/model.js';
import {moe} from '../../src/model/moe.js';
import {mapTree} from '../../src/model/parameters.js';
import {route, routerLogits} from '../../src/model/router.js';
import {useScratch} from '../format/scratch.js';
import {readIds} from '../model/tiny-llama.js';
import {onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import * as tf from '../support/tfjs.js';
import {GOLDENS, type Golden, hasGoldens, layerOf, readIds as readBytes, readJson, readTensors} from './golden.js';

const scratch = useScratch();
const ACTIVE = 4;
const WEIGHTINGS = [
  {suffix: '', routing: {...SOFTMAX_ROUTING, weight: 'one'}},
  {suffix: '_softmax', routing: SOFTMAX_ROUTING},
] as const;

describe.skipIf(!hasGoldens).each([
  {name: 'tiny_llama', folder: 'tiny_llama'},
  {name: 'stories260k', folder: 'stories260k/model'},
])('$name cut along its golden partition', ({name, folder}) => {
  const file = `${GOLDENS}/expertweaver/${name}.safetensors`;

  onEngine('tensorflow-compiled', 'has the golden logits with weights one and with softmax', async () => {
    const golden = readTensors(file);
    const ids = await readIds(file, 'sequence_ids');
    const dense = await loadModel(`${GOLDENS}/${folder}`);
    expect(await logitsOf(dense, [ids])).toBeAllClose(golden.dense_logits!, {rtol: 0, atol: 1e-4});
    dense.dispose();
    const model = await cutModel(name, folder);
    for (const {suffix, routing} of WEIGHTINGS) {
      const architecture: Architecture = {...model.architecture, routing};
      const received = await logitsOf({...model, architecture}, [ids]);
      expect(received).toBeAllClose(golden[`even.logits${suffix}`]!, {rtol: 0, atol: 1e-4});
    }
    model.dispose();
  });

  onEngine('wasm', 'has the golden choices and FFN outputs in every layer', async () => {
    const golden = readTensors(file);
    const selected = await readIds(file, 'even.selected');
    const model = await cutModel(name, folder);
    const numLayers = model.architecture.ffn.length;
    for (let layer = 0; layer < numLayers; layer++) {
      const x = layerOf(golden.ffn_rows!, layer, numLayers);
      const chosen = selected.slice((layer * selected.length) / numLayers, ((layer + 1) * selected.length) / numLayers);
      expect(choicesOf(model, layer, x)).toEqual(chosen);
      for (const {suffix, routing} of WEIGHTINGS) {
        const expected = layerOf(golden[`even.ffn_out${suffix}`]!, layer, numLayers);
        expect(ffnOf({...model.architecture, routing}, model, layer, x)).toBeAllClose(expected, {rtol: 0, atol: 1e-5});
      }
    }
    model.dispose();
  });
});

interface GoldenForward {
  active_experts: number;
  layers: {shared_ids: number[]; expert_ids: number[][]; representatives: number[]}[];
}

describe.skipIf(!hasGoldens)('tiny_llama cut as CMoE does', () => {
  const file = `${GOLDENS}/cmoe/tiny_llama.safetensors`;
  const cuts = hasGoldens
    ? Object.entries(readJson<{forward: Record<string, GoldenForward>}>(`${GOLDENS}/cmoe/tiny_llama.json`).forward)
    : [];

  for (const [cut, {active_experts: topK, layers}] of cuts) {
    onEngine('tensorflow-compiled', `has the golden scores, choices and logits of ${cut}`, async () => {
      const golden = readTensors(file);
      const plan = layers.map(({shared_ids, expert_ids, representatives}) => ({
        shared: Int32Array.from(shared_ids),
        experts: expert_ids.map((ids) => Int32Array.from(ids)),
        topK,
        representatives: Int32Array.from(representatives),
      }));
      const model = await writtenModel('tiny_llama', plan, {
        ...SOFTMAX_ROUTING,
        order: 'topk-then-score',
        weight: 'one',
      });
      const ids = await readIds(file, 'sequence_ids');
      expect(await logitsOf(model, [ids])).toBeAllClose(golden[`${cut}.logits`]!, {rtol: 0, atol: 2e-4});
      const selected = await readIds(file, `${cut}.selected`);
      for (const [layer] of layers.entries()) {
        const x = layerOf(golden.ffn_rows!, layer, layers.length);
        const scores = layerOf(golden[`${cut}.scores`]!, layer, layers.length);
        expect(logitsOfRouter(model, layer, x)).toBeAllClose(scores, {rtol: 0, atol: 1e-5});
        const perLayer = selected.length / layers.length;
        expect(choicesOf(model, layer, x, topK)).toEqual(selected.slice(layer * perLayer, (layer + 1) * perLayer));
      }
      model.dispose();
    });
  }

  it('stands each expert for by the golden neuron', () => {
    const counts = readBytes(file, 'plain.active_ids');
    const perLayer = counts.length / 3;
    for (const [, {layers}] of cuts) {
      for (const [layer, {expert_ids, representatives}] of layers.entries()) {
        const marker_NM = Int32Array.from(counts.slice(layer * perLayer, (layer + 1) * perLayer));
        const profile = {...unwatched(256), marker_NM, numMarkers: 10};
        expect(expert_ids.map((ids) => representative(profile, Int32Array.from(ids)))).toEqual(representatives);
      }
    }
  });
});

async function cutModel(name: string, folder: string): Promise<Model> {
  const {shared_ids: shared, expert_ids: experts} = readJson<Golden>(`${GOLDENS}/expertweaver/${name}.json`).partitions
    .even!;
  const layer = {shared: Int32Array.from(shared), experts: experts.map((ids) => Int32Array.from(ids)), topK: ACTIVE};
  return writtenModel(folder, [layer]);
}

/** A golden model cut by a plan, of which the last layer stands for those that follow. */
async function writtenModel(
  folder: string,
  plans: readonly LayerPlan[],
  routing: Routing = SOFTMAX_ROUTING,
): Promise<Model> {
  const source = await openDense(`${GOLDENS}/${folder}`);
  const layers = source.architecture.ffn.map((_, l) => plans[Math.min(l, plans.length - 1)]!);
  const plan: ConversionPlan = {method: 'golden', numNeurons: source.numNeurons, padding: 0, layers, allocation: []};
  const router = layers[0]!.representatives ? 'representative' : 'linear';
  await writeMoe(source, scratch('moe'), {
    architecture: splitArchitecture(source.architecture, plan, routing, {router}),
    provenance: {kind: 'scratch', format: 1, versions: currentVersions(), seed: 0, equivalence: null},
    ffn: (site) => splitFfn(site, plan),
  });
  await source.folder.close();
  return loadModel(scratch('moe'));
}

function mixtureOf({parameters}: Model, layer: number) {
  const {ffn} = mapTree(parameters, (variable) => variable.read()).layers[layer]!;
  if (ffn.kind !== 'moe') throw new Error(`layer ${layer} is dense`);
  return ffn;
}

/** Ids of the chosen experts of each row, ascending. */
function choicesOf(model: Model, layer: number, x: Float32Array, topK = ACTIVE): number[] {
  return tf.tidy(() => {
    const rows = route(logits(model, layer, x), null, topK, SOFTMAX_ROUTING).expert_TK.arraySync();
    return rows.flatMap((row) => row.toSorted((a, b) => a - b));
  });
}

function logitsOfRouter(model: Model, layer: number, x: Float32Array): Float32Array {
  return tf.tidy(() => logits(model, layer, x).dataSync() as Float32Array);
}

function logits(model: Model, layer: number, x: Float32Array): tf.Tensor2D {
  const x_TD = tf.tensor2d(x, [x.length / model.architecture.width, model.architecture.width]);
  return routerLogits(x_TD, mixtureOf(model, layer));
}

function ffnOf({ffn, routing, width}: Architecture, model: Model, layer: number, x: Float32Array): Float32Array {
  const layout = ffn[layer];
  if (layout?.kind !== 'moe') throw new Error(`layer ${layer} is dense`);
  return tf.tidy(() => {
    const x_TD = tf.tensor2d(x, [x.length / width, width]);
    return moe(x_TD, mixtureOf(model, layer), layout, routing, 'dropless').y_TD.dataSync() as Float32Array;
  });
}
