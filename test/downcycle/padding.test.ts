import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {type Conversion, convert, planOf} from '../../src/downcycle/convert.js';
import {type FittedLayer, startFit} from '../../src/downcycle/fit.js';
import {openDense} from '../../src/downcycle/model-source.js';
import {countNeurons, NEURONS_FILE, readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {measureRoutedScale} from '../../src/downcycle/output-scale.js';
import {padDense} from '../../src/downcycle/padding.js';
import {type ConversionPlan, LEFT_OUT, SHARED} from '../../src/downcycle/plan.js';
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
const CUTS = [
  {...counts, padding: 4},
  {...counts, experts: 10, shared: 0, padding: 6}, // twice as many as one expert has
  {...counts, shared: 6, padding: 9}, // more than there are experts
];
const METHODS = [
  {method: 'contiguous'},
  {method: 'random'},
  {method: 'expertweaver'},
  {method: 'expertweaver', sharedBy: 'low-cv', standardise: false, assignment: 'greedy'},
  {method: 'expertweaver', allocation: 'adaptive', alphaMax: 0.4, topK: 5},
  {method: 'expertweaver', allocation: 'sensitivity'},
  {method: 'cmoe'},
  {method: 'moefication'},
  {method: 'llama-moe', split: 'k-means'},
  {method: 'llama-moe', split: 'co-activation'},
  {method: 'llama-moe', split: 'importance'},
  {method: 'weave', regroup: 0, repair: 'none', router: 'gate-mean'},
  {method: 'weave', regroup: 0, repair: 'none', router: 'representative'},
];
let profile: Profile;
let folder: string;

beforeAll(async () => {
  await startEngine();
  folder = await mkdtemp(join(tmpdir(), 'downcycle-padding-')); // the profile reads from it
  const source = await openDense(TINY_LLAMA);
  const options = profileSchema.parse({predictors: true, gradients: true, markers: {count: 3}});
  profile = await profileText(source, calibration, {profile: options, partial: join(folder, 'partial')});
  await source.folder.close();
});

afterAll(() => rm(folder, {recursive: true}));

function padded(method: object, more: Partial<Parameters<typeof convert>[0]> = {}): Promise<Conversion> {
  return convert({
    ...{model: TINY_LLAMA, out: scratch('moe'), method: splitOptions({...counts, ...method}), seed: 3, profile},
    ...more,
  });
}

/** Every neuron in one part, and zeros in the last experts, one in each; those that are over in the shared part. */
function expectZerosDealtOut(map: Int32Array, padding: number): void {
  const {shared, experts, leftOut} = countNeurons(map);
  expect(leftOut).toBe(0);
  expect(shared + experts.reduce((sum, count) => sum + count, 0)).toBe(F + padding);
  expect(new Set(experts).size).toBe(1);
  expect(experts[0]).toBeGreaterThan(1); // a place of zeros and one that is not
  const zeros = Array.from(map.subarray(F)).sort((a, b) => a - b);
  const inExperts = Math.min(padding, experts.length);
  const last = Array.from({length: inExperts}, (_, i) => experts.length - inExperts + i);
  expect(zeros).toEqual([...new Array<number>(padding - inExperts).fill(SHARED), ...last]);
}

describe.each(CUTS)('a padded conversion into $experts experts and $shared shared chunks', ({padding, ...cut}) => {
  it.each(METHODS)('deals zeros out and computes with all experts what the dense model does: %o', async (method) => {
    const {provenance, parent, warnings} = await padded({...cut, ...method});
    expect(provenance.padding).toBe(padding);
    expect(parent.ffn[0]).toEqual({kind: 'dense', width: F});
    expect(warnings).toEqual([]);
    for (const map of await readNeuronMaps(scratch('moe'))) expectZerosDealtOut(map, padding);
    const {maxLogitDifference, limit, passed} = await proveConversion(TINY_LLAMA, scratch('moe'), [tinyGolden.ids]);
    expect(passed).toBe(true);
    expect(maxLogitDifference).toBeLessThanOrEqual(limit / 5); // 1e-5 of the largest logit
  });

  it.each(METHODS)('has neurons of the dense model as representatives: %o', async (method) => {
    const plan = await planOf({
      ...{model: TINY_LLAMA, seed: 3, profile},
      method: splitOptions({...cut, ...method, router: 'representative', weights: 'one'}),
    });
    for (const {experts, representatives} of plan.layers) {
      const own = experts.map((ids, e) => ids.filter((id) => id < F && id === representatives?.[e]));
      expect(own.map((ids) => ids.length)).toEqual(experts.map(() => 1));
    }
  });
});

describe('a padded conversion', () => {
  it.each(['none', 'refit'])(
    'has the means of the gate rows that are there as its router (repair %s)',
    async (repair) => {
      await padded({method: 'contiguous', repair}, {calibration});
      const [dense, moe] = [await openModelFolder(TINY_LLAMA), await openModelFolder(scratch('moe'))];
      const gate = await dense.tensors.readRows('model.layers.0.mlp.gate_proj.weight', 21, 24); // of the last expert
      const router = await moe.tensors.read('model.layers.0.mlp.gate.weight');
      const mean = Array.from({length: 16}, (_, d) => (gate[d]! + gate[16 + d]! + gate[32 + d]!) / 3);
      expect(router.subarray(4 * 16)).toBeAllClose(mean, {rtol: 1e-5, atol: 1e-6});
      for (const folder of [dense, moe]) await folder.close();
    },
  );

  it.each(['F32', 'BF16', 'F64'] as const)('keeps the bits of every weight of %s, and adds zeros', async (dtype) => {
    const model = await writeTinyLlama(scratch('dense'), {dtype});
    await padded({method: 'contiguous'}, {model, profile: await tinyProfile(model)});
    const [dense, moe] = [await openModelFolder(model), await openModelFolder(scratch('moe'))];
    const ffn = 'model.layers.1.mlp';
    const size = {F32: 4, BF16: 2, F64: 8}[dtype];
    for (const name of ['gate_proj', 'up_proj']) {
      const whole = await dense.tensors.readBytes(`${ffn}.${name}.weight`);
      const first = await moe.tensors.readBytes(`${ffn}.experts.0.${name}.weight`); // neurons 8 to 11
      const last = await moe.tensors.readBytes(`${ffn}.experts.4.${name}.weight`); // neurons 21 to 23 and one of zeros
      expect(first).toEqual(whole.slice(8 * 16 * size, 12 * 16 * size));
      expect(last).toEqual(Uint8Array.from([...whole.slice(21 * 16 * size), ...new Uint8Array(16 * size)]));
    }
    const down = await dense.tensors.read(`${ffn}.down_proj.weight`);
    const columns = (at: number, count: number): Float32Array =>
      Float32Array.from({length: 16 * 4}, (_, i) => ((i & 3) < count ? down[(i >> 2) * F + at + (i & 3)]! : 0));
    const [first, last] = [0, 4].map((e) => moe.tensors.read(`${ffn}.experts.${e}.down_proj.weight`));
    expect(await first).toEqual(columns(8, 4));
    expect(await last).toEqual(columns(21, 3));
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

  /** 9 shared neurons, experts of 4, 4, 4 and 3; or of 10 and 4 each with zeros. */
  const bareOrPadded = (padding: 0 | 2): ConversionPlan => ({
    ...{method: 'contiguous', numNeurons: F + padding, padding, allocation: []},
    layers: [0, 1].map(() => ({
      shared: Int32Array.from([...ids(0, 9), ...ids(F, F + padding / 2)]),
      experts: [ids(9, 13), ids(13, 17), ids(17, 21), Int32Array.from([...ids(21, F), ...ids(F + 1, F + padding)])],
      topK: 2,
    })),
  });

  it('has the factors of its routed part that it would have without', async () => {
    const text = {tokens: Int32Array.from(tinyGolden.ids), sequenceLength: tinyGolden.ids.length};
    const how = {method: splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2}), seed: 1};
    const bare = await measureRoutedScale(TINY_LLAMA, bareOrPadded(0), text, how);
    const padded = await measureRoutedScale(TINY_LLAMA, bareOrPadded(2), text, how);
    expect(padded).toBeAllClose(bare, {rtol: 1e-5, atol: 0});
  });

  it.each(['gate-mean', 'ridge'] as const)('is fitted as it would be without (%s)', async (router) => {
    const fitted = async (padding: 0 | 2): Promise<FittedLayer> => {
      const source = padDense(await openDense(TINY_LLAMA), padding);
      const options = {router, seed: 1, refits: true, refitWeight: 0.1, weights: 'one'} as const;
      const fit = await startFit(source, calibration, bareOrPadded(padding), options);
      const layer = await fit.layer(0);
      fit.dispose();
      await source.folder.close();
      return layer;
    };
    const [bare, wide] = [await fitted(0), await fitted(2)];
    expect(wide.router_ED).toBeAllClose(bare.router_ED, {rtol: 1e-4, atol: 1e-5});
    expect([wide.error!.before, wide.error!.after]).toBeAllClose([bare.error!.before, bare.error!.after], {rtol: 1e-4});
    const down_DF = wide.down_DF!.filter((_, at) => at % (F + 2) < F);
    expect(down_DF).toBeAllClose(bare.down_DF!, {rtol: 1e-3, atol: 1e-5});
  });

  it('adds nothing to a layer without experts: whole chunks of neurons are kept, and the others left out', async () => {
    for (const keepBy of ['mean-abs', 'magnitude', 'variance', 'markers', 'sensitivity']) {
      const out = scratch(`pruned-${keepBy}`);
      const {provenance} = await padded({method: 'all-shared', keepBy}, {out});
      expect(provenance.padding).toBe(0);
      for (const map of await readNeuronMaps(out)) {
        expect(map).toHaveLength(F);
        expect(map.filter((place) => place !== LEFT_OUT)).toHaveLength(5 * 4);
      }
    }
    await padded({method: 'all-shared', topK: 5}, {out: scratch('all')}); // every chunk there is
    for (const map of await readNeuronMaps(scratch('all'))) expect(map).toEqual(new Int32Array(F).fill(SHARED));
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
