// What holds of a split whichever router it has.

import {describe, expect, it} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {drawRouter, routerDraw} from '../../src/downcycle/drawn-router.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {denseFfn} from '../../src/downcycle/watch.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {openTensors} from '../../src/format/tensor-store.js';
import {countParameters} from '../../src/model/architecture.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {decoderLayer, throughAttention} from '../../src/model/decoder.js';
import {glu} from '../../src/model/glu.js';
import {leavesOf, parameterSpecs} from '../../src/model/parameters.js';
import {hiddenTensor, startWalk} from '../../src/model/walk.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, tinyArchitecture} from '../model/tiny-llama.js';
import {onEngine} from '../support/engines.js';
import * as tf from '../support/tfjs.js';
import {lotCalibration as calibration, S} from './lot-calibration.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();
const sequences = [0, 1].map((j) => [...calibration.tokens.subarray(j * S, (j + 1) * S)]);
const SCALED = {router: 'representative', weights: 'one-plus-scaled'} as const;
const SPLITS = (['gate-mean', 'representative', 'ridge', 'centroid', 'random', 'mlp'] as const).flatMap((router) =>
  (['one', 'score'] as const).flatMap((weights) =>
    router === 'ridge' && weights === 'score' ? [] : [{router, weights}],
  ),
);

const EVERY_WAY = [...SPLITS, SCALED];

async function split(name: string, words: object): Promise<string> {
  const method = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2, ...words});
  const out = scratch(name);
  await convert({model: TINY_LLAMA, out, method, seed: 5, calibration, profile: await tinyProfile()});
  return out;
}

for (const {router, weights} of EVERY_WAY) {
  describe(`a split with router ${router} and weights ${weights}`, () => {
    onEngine('wasm', 'equals its parent with all experts at weight 1', async () => {
      const folder = await split('plain', {router, weights});
      expect(await proveConversion(TINY_LLAMA, folder, sequences)).toMatchObject({passed: true});
    });

    onEngine('wasm', 'is repaired on the very choices that the model makes', async () => {
      const folder = await split('repaired', {router, weights, repair: 'refit'});
      const provenance = await readProvenance(folder);
      if (provenance.kind !== 'split') throw new Error('not a split');
      const fitted = provenance.layers.map(({error}) => error!);
      for (const {before, after} of fitted) expect(after).toBeLessThan(before);
      expect(fitted.map(({after}) => after)).toBeAllClose(await errorsOf(folder), {rtol: 1e-3, atol: 1e-6});
    });
  });
}

describe('weights of one and a scaled score', () => {
  onEngine('wasm', 'give what weights of one give, to the bit, until they are trained', async () => {
    const scaled = await hiddenStates(await split('scaled', SCALED));
    const plain = await hiddenStates(await split('unscaled', {...SCALED, weights: 'one'}));
    expect(scaled.map(({hidden}) => hidden)).toEqual(plain.map(({hidden}) => hidden));
    const tensors = await openTensors(scratch('scaled'));
    expect([...(await tensors.read('model.layers.0.mlp.gate.expert_scale'))]).toEqual([0, 0, 0, 0]);
    await tensors.close();
  });
});

/** Squared distance of a mixture's hidden states after each layer to its parent's, over what the parent's FFN gives. */
async function errorsOf(mixture: string): Promise<number[]> {
  const [dense, moe] = [await hiddenStates(TINY_LLAMA), await hiddenStates(mixture)];
  return dense.map(({hidden, size}, l) => hidden.reduce((sum, x, i) => sum + (x - moe[l]!.hidden[i]!) ** 2, 0) / size);
}

/** Hidden states after each layer, and the squared norm of what its FFN gives if it is dense. */
async function hiddenStates(path: string): Promise<{hidden: Float32Array; size: number}[]> {
  const folder = await openModelFolder(path);
  const architecture = architectureFromConfig(folder.config, path);
  const walk = await startWalk(folder, architecture, calibration);
  const forward = walk.compile('layer', ({params, layout, context}, x_TD: tf.Tensor2D) => {
    const {y_TD} = throughAttention(x_TD, params, architecture, context);
    return {
      next_TD: decoderLayer(x_TD, params, layout, architecture, context).next_TD,
      size: params.ffn.kind === 'dense' ? tf.sum(tf.square(glu(y_TD, denseFfn(params.ffn)))) : tf.scalar(0),
    };
  });
  const found: {hidden: Float32Array; size: number}[] = [];
  const [batch] = walk.batches;
  for (const layer of architecture.ffn.keys()) {
    await walk.load(layer);
    const x_TD = hiddenTensor(walk, batch!);
    const {next_TD, size} = await forward(x_TD);
    batch!.set(await next_TD.data());
    found.push({hidden: batch!.slice(), size: (await size.data())[0]!});
    tf.dispose([x_TD, next_TD, size]);
  }
  walk.dispose();
  await folder.close();
  return found;
}

describe('a router that is drawn', () => {
  const draw = routerDraw(splitOptions({method: 'random', experts: 4, topK: 2, router: 'mlp'}), 5)!;
  const drawn = drawRouter(draw, {...tinyArchitecture, width: 512}, 0, 16);

  it('is normal of standard deviation 0.02, cut at three of them, in both matrices', () => {
    for (const [matrix, size] of [
      [drawn.router, 512 * 16],
      [drawn.routerOut!, 256],
    ] as const) {
      expect(matrix).toHaveLength(size);
      const std = Math.sqrt(matrix.reduce((sum, x) => sum + x * x, 0) / size);
      expect(std).toBeAllClose(0.0197, {rtol: 5 / Math.sqrt(2 * size), atol: 0});
      expect(Math.max(...matrix.map(Math.abs))).toBeLessThanOrEqual(Math.fround(0.06));
    }
  });

  it('is another in another layer and of another seed, and the same again', () => {
    const of = (seed: number, layer: number) => drawRouter({router: 'random', seed}, tinyArchitecture, layer, 4).router;
    expect(of(5, 0)).toEqual(of(5, 0));
    expect(of(5, 0)).not.toEqual(of(5, 1));
    expect(of(5, 0)).not.toEqual(of(6, 0));
  });

  it('is none where routers are made of something', () => {
    expect(routerDraw(splitOptions({method: 'random', experts: 4, topK: 2}), 5)).toBeNull();
    expect(routerDraw(splitOptions({method: 'all-shared', experts: 4, topK: 2}), 5)).toBeNull();
  });

  for (const router of ['random', 'mlp'] as const) {
    it(`is what the model's files hold, and counted (${router})`, async () => {
      const folder = await split('moe', {router});
      const tensors = await openTensors(folder);
      for (const layer of [0, 1]) {
        const expected = drawRouter({router, seed: 5}, tinyArchitecture, layer, 4);
        const read = (name: string) => tensors.read(`model.layers.${layer}.mlp.${name}.weight`);
        expect(await read('gate')).toEqual(transposed(expected.router, 4));
        if (router === 'mlp') expect(await read('gate_out')).toEqual(transposed(expected.routerOut!, 4));
        else expect(tensors.names).not.toContain('model.layers.0.mlp.gate_out.weight');
      }
      await tensors.close();
      const opened = await openModelFolder(folder);
      const architecture = architectureFromConfig(opened.config, folder);
      await opened.close();
      const sizes = leavesOf(parameterSpecs(architecture)).map(({shape}) => shape.reduce((a, b) => a * b, 1));
      expect(countParameters(architecture).total).toBe(sizes.reduce((a, b) => a + b, 0));
    });
  }
});

function transposed(values: Float32Array, columns: number): Float32Array {
  const rows = values.length / columns;
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
}
