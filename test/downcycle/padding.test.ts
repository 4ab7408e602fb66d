import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {beforeAll, describe, expect, it} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {type Conversion, convert} from '../../src/downcycle/convert.js';
import {openDense} from '../../src/downcycle/model-source.js';
import {NEURONS_FILE, readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {measureRoutedScale} from '../../src/downcycle/output-scale.js';
import {padDense} from '../../src/downcycle/padding.js';
import {LEFT_OUT} from '../../src/downcycle/plan.js';
import type {Profile} from '../../src/downcycle/profile-file.js';
import {profileText} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {startEngine} from '../../src/engine/start.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, tinyGolden, writeTinyLlama} from '../model/tiny-llama.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();
const S = 16;
const F = 24;
const rng = createRng(5, 'tokens');
const calibration: Calibration = {
  tokens: Int32Array.from({length: 6 * S}, () => rng.int(32)),
  sequenceLength: S,
  tasks: ['a', 'b', 'c'],
  taskOfSample_J: Int32Array.of(0, 0, 1, 1, 2, 2),
  hash: 'h',
};
/** 24 neurons in 7 chunks: 28, of which 4 are zeros, as many as one expert has. */
const counts = {experts: 5, shared: 2, topK: 3, pad: true};
let profile: Profile;

beforeAll(async () => {
  await startEngine();
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-padding-'));
  const source = await openDense(TINY_LLAMA);
  const options = profileSchema.parse({predictors: true, gradients: true, markers: {count: 3}});
  profile = await profileText(source, calibration, {profile: options, partial: join(folder, 'partial')});
  await source.folder.close();
  await rm(folder, {recursive: true});
});

function padded(method: object, more: Partial<Parameters<typeof convert>[0]> = {}): Promise<Conversion> {
  return convert({
    ...{model: TINY_LLAMA, out: scratch('moe'), method: splitOptions({...counts, ...method}), seed: 3, profile},
    ...more,
  });
}

describe('a padded conversion', () => {
  it.each([
    {method: 'contiguous'},
    {method: 'random'},
    {method: 'expertweaver'},
    {method: 'expertweaver', sharedBy: 'low-cv', standardise: false, assignment: 'greedy'},
    {method: 'expertweaver', allocation: 'adaptive', topK: 5},
    {method: 'expertweaver', allocation: 'sensitivity'},
    {method: 'cmoe'},
    {method: 'moefication'},
    {method: 'moefication', shared: 0, experts: 7},
    {method: 'llama-moe', split: 'k-means'},
    {method: 'llama-moe', split: 'co-activation'},
    {method: 'llama-moe', split: 'importance'},
    {method: 'weave', regroup: 0, repair: 'none', router: 'gate-mean'},
    {method: 'weave', regroup: 0, repair: 'none', router: 'representative'},
  ])('computes with all experts what the dense model computes: %o', async (method) => {
    const {provenance, parent, warnings} = await padded(method);
    expect(provenance.padding).toBe(4);
    expect(parent.ffn[0]).toEqual({kind: 'dense', width: F});
    expect(warnings).toEqual([]);
    const {maxLogitDifference, limit, passed} = await proveConversion(TINY_LLAMA, scratch('moe'), [tinyGolden.ids]);
    expect(passed).toBe(true);
    expect(maxLogitDifference).toBeLessThanOrEqual(limit / 5); // 1e-5 of the largest logit
    const maps = await readNeuronMaps(scratch('moe'));
    for (const map of maps) expect(map).toHaveLength(F + 4);
  });

  it.each(['F32', 'BF16', 'F64'] as const)('keeps the bits of every weight of %s, and adds zeros', async (dtype) => {
    const model = await writeTinyLlama(scratch('dense'), {dtype});
    await padded({method: 'contiguous'}, {model, profile: await tinyProfile(model)});
    const [dense, moe] = [await openModelFolder(model), await openModelFolder(scratch('moe'))];
    const ffn = 'model.layers.1.mlp';
    const size = {F32: 4, BF16: 2, F64: 8}[dtype];
    for (const name of ['gate_proj', 'up_proj']) {
      const whole = await dense.tensors.readBytes(`${ffn}.${name}.weight`);
      const last = await moe.tensors.readBytes(`${ffn}.experts.4.${name}.weight`); // neurons 24 to 27
      const before = await moe.tensors.readBytes(`${ffn}.experts.3.${name}.weight`); // neurons 20 to 23
      expect(last).toEqual(new Uint8Array(4 * 16 * size));
      expect(before).toEqual(whole.slice(20 * 16 * size));
    }
    const down = await dense.tensors.read(`${ffn}.down_proj.weight`);
    const [before, last] = [3, 4].map((e) => moe.tensors.read(`${ffn}.experts.${e}.down_proj.weight`));
    expect(await last).toEqual(new Float32Array(16 * 4));
    expect(await before).toEqual(Float32Array.from({length: 16 * 4}, (_, i) => down[(i >> 2) * F + 20 + (i & 3)]!));
    for (const folder of [dense, moe]) await folder.close();
  });

  it('repairs and routes as if the neurons were not there', async () => {
    await padded({method: 'weave', repairWeight: 1e-2}, {calibration});
    const provenance = await readProvenance(scratch('moe'));
    for (const {error} of provenance.kind === 'split' ? provenance.layers : [])
      expect(error!.after).toBeLessThan(error!.before);
    const maps = await readNeuronMaps(scratch('moe'));
    const folder = await openModelFolder(scratch('moe'));
    for (const name of folder.tensors.names) {
      expect((await folder.tensors.read(name)).every(Number.isFinite), name).toBe(true);
    }
    const [first = new Int32Array(0)] = maps;
    const expert = first[F] as number; // of the first neuron of zeros
    const place = first.subarray(0, F).filter((one) => one === expert).length;
    const down = await folder.tensors.read(`model.layers.0.mlp.experts.${expert}.down_proj.weight`);
    for (let row = 0; row < 16; row++) expect(down[row * 4 + place]).toBe(0);
    await folder.close();
  });

  it('has the factors of its routed part that it would have without', async () => {
    const plan = (numNeurons: number) => ({
      ...{method: 'contiguous', numNeurons, allocation: []},
      layers: [0, 1].map(() => ({
        shared: Int32Array.from([...ids(0, 8), ...ids(24, numNeurons)]),
        experts: Array.from({length: 4}, (_, e) => ids(8 + 4 * e, 12 + 4 * e)),
        topK: 2,
      })),
    });
    const text = {tokens: Int32Array.from(tinyGolden.ids), sequenceLength: tinyGolden.ids.length};
    const bare = await measureRoutedScale(TINY_LLAMA, plan(24), text);
    expect(await measureRoutedScale(TINY_LLAMA, plan(27), text)).toBeAllClose(bare, {rtol: 1e-6, atol: 0});
  });

  it('never keeps a neuron of zeros where others are left out', async () => {
    for (const keepBy of ['mean-abs', 'magnitude', 'variance', 'markers', 'sensitivity']) {
      const out = scratch(`pruned-${keepBy}`);
      await padded({method: 'all-shared', keepBy}, {out});
      for (const map of await readNeuronMaps(out)) {
        expect(map.filter((place) => place !== LEFT_OUT)).toHaveLength(5 * 4);
        expect(Array.from(map.subarray(F))).toEqual([LEFT_OUT, LEFT_OUT, LEFT_OUT, LEFT_OUT]);
      }
    }
  });

  it('says in the file of its map how many neurons were added, and nothing where none were', async () => {
    await padded({method: 'random'});
    const file = await openSafetensors(scratch(`moe/${NEURONS_FILE}`));
    expect(file.metadata.padding).toBe('4');
    await file.close();
    const {provenance} = await padded({method: 'random', experts: 6}, {out: scratch('whole')});
    expect(provenance.padding).toBe(0);
    const whole = await openSafetensors(scratch(`whole/${NEURONS_FILE}`));
    expect(whole.metadata.padding).toBeUndefined();
    await whole.close();
  });
});

describe('padDense', () => {
  it('shows the same model with wider FFNs, and rows of them as asked for', async () => {
    const source = await openDense(TINY_LLAMA);
    const wide = padDense(source, 3);
    expect(padDense(source, 0)).toBe(source);
    expect(wide.architecture.ffn).toEqual([0, 1].map(() => ({kind: 'dense', width: 27})));
    const {tensors} = wide.folder;
    expect(tensors.info('model.layers.0.mlp.down_proj.weight').shape).toEqual([16, 27]);
    const gate = 'model.layers.0.mlp.gate_proj.weight';
    const rows = await tensors.readRows(gate, 23, 25);
    expect(rows.subarray(0, 16)).toEqual(await source.folder.tensors.readRows(gate, 23, 24));
    expect(rows.subarray(16)).toEqual(new Float32Array(16));
    expect(await tensors.readRows('model.norm.weight', 0, 4)).toHaveLength(4);
    expect(await tensors.read('model.embed_tokens.weight')).toHaveLength(32 * 16);
    await wide.folder.close();
  });
});

function ids(begin: number, end: number): Int32Array {
  return Int32Array.from({length: end - begin}, (_, i) => begin + i);
}
