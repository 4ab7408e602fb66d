// Logits, FFN outputs and choices of both golden models cut along the stored partition.
import * as tf from '@tensorflow/tfjs';
import {describe, expect} from 'vitest';
import {splitArchitecture} from '../../src/downcycle/convert.js';
import {openDense, writeMoe} from '../../src/downcycle/convert-source.js';
import type {ConversionPlan} from '../../src/downcycle/plan.js';
import {logitsOf} from '../../src/downcycle/proof.js';
import {currentVersions} from '../../src/downcycle/provenance.js';
import {splitFfn} from '../../src/downcycle/split-ffn.js';
import {type Architecture, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {loadModel, type Model} from '../../src/model/model.js';
import {moe} from '../../src/model/moe.js';
import {mapTree} from '../../src/model/parameters.js';
import {route} from '../../src/model/router.js';
import {useScratch} from '../format/scratch.js';
import {readIds} from '../model/tiny-llama.js';
import {onEngine} from '../support/engines.js';
import {GOLDENS, type Golden, hasGoldens, layerOf, readJson, readTensors} from './golden.js';

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

async function cutModel(name: string, folder: string): Promise<Model> {
  const {shared_ids: shared, expert_ids: experts} = readJson<Golden>(`${GOLDENS}/expertweaver/${name}.json`).partitions
    .even!;
  const source = await openDense(`${GOLDENS}/${folder}`);
  const layer = {shared: Int32Array.from(shared), experts: experts.map((ids) => Int32Array.from(ids)), topK: ACTIVE};
  const layers = source.architecture.ffn.map(() => layer);
  const plan: ConversionPlan = {method: 'golden', numNeurons: source.numNeurons, layers, allocation: []};
  await writeMoe(source, scratch('moe'), {
    architecture: splitArchitecture(source.architecture, plan),
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
function choicesOf(model: Model, layer: number, x: Float32Array): number[] {
  return tf.tidy(() => {
    const x_TD = tf.tensor2d(x, [x.length / model.architecture.width, model.architecture.width]);
    const logit_TE: tf.Tensor2D = tf.matMul(x_TD, mixtureOf(model, layer).router as tf.Tensor2D);
    const rows = route(logit_TE, null, ACTIVE, SOFTMAX_ROUTING).expert_TK.arraySync();
    return rows.flatMap((row) => row.toSorted((a, b) => a - b));
  });
}

function ffnOf({ffn, routing, width}: Architecture, model: Model, layer: number, x: Float32Array): Float32Array {
  const layout = ffn[layer];
  if (layout?.kind !== 'moe') throw new Error(`layer ${layer} is dense`);
  return tf.tidy(() => {
    const x_TD = tf.tensor2d(x, [x.length / width, width]);
    return moe(x_TD, mixtureOf(model, layer), layout, routing, 'dropless').y_TD.dataSync() as Float32Array;
  });
}
