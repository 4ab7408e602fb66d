// Hierarchical CMoE: the experts of a mixture cut once more.
import {readdir, readFile, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it, vi} from 'vitest';
import type {Calibration} from '../../src/downcycle/calibration.js';
import {convert} from '../../src/downcycle/convert.js';
import {type ExpertPlan, planExperts, unreachedTexts} from '../../src/downcycle/inner/plan.js';
import {watchExperts} from '../../src/downcycle/inner/watch.js';
import {openDense, openSource} from '../../src/downcycle/model-source.js';
import {readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import type {CmoeOptions} from '../../src/downcycle/options.js';
import {profileText} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {type SplitExpertsOptions, splitExperts} from '../../src/downcycle/split-experts.js';
import type {MarkerProfile} from '../../src/downcycle/statistics.js';
import {openTensors} from '../../src/format/tensor-store.js';
import type {Architecture, FfnLayout} from '../../src/model/architecture.js';
import {loadModel} from '../../src/model/model.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {ConfigError, ModelError} from '../../src/util/errors.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {tiny, writeModel} from '../train/support.js';
import {splitOptions} from './split-options.js';

vi.setConfig({testTimeout: 120_000});

const scratch = useScratch();
const [J, S] = [8, 16];
const rng = createRng(9, 'tokens');
const calibration: Calibration = {
  tokens: Int32Array.from({length: J * S}, () => rng.int(274)),
  sequenceLength: S,
  tasks: ['a'],
  taskOfSample_J: new Int32Array(J),
  hash: 'h',
};
const sequences = [0, 1, 2].map((j) => [...calibration.tokens.subarray(j * S, (j + 1) * S)]);
const profile = profileSchema.parse({markers: {count: 4}});
const [G, F] = [4, 24];
const LAYER = {
  kind: 'moe',
  experts: G,
  topK: 2,
  expertWidth: F,
  sharedWidth: 0,
  selectionBias: false,
  router: 'linear',
} as const satisfies FfnLayout;
const MIXTURE = tiny([LAYER, {kind: 'dense', width: 20}, {...LAYER, sharedWidth: 8, selectionBias: true}]);

/** Weights large enough for experts to matter. */
const large = ({role}: ParameterSpec, values: Float32Array): Float32Array => {
  if (role === 'norm') return values;
  return role === 'bias' || role === 'expert-bias' ? values.map((_, i) => Math.sin(i) / 8) : values.map((x) => 8 * x);
};

/** A mixture on disk. */
const mixture = (architecture: Architecture = MIXTURE, change = large): Promise<string> =>
  writeModel(scratch('mixture'), architecture, change);

function cmoe(words: object = {}): CmoeOptions {
  const method = splitOptions({method: 'cmoe', experts: 5, shared: 3, topK: 2, ...words});
  if (method.method !== 'cmoe') throw new Error('not cmoe');
  return method;
}

async function cut(words: object = {}, more: Partial<SplitExpertsOptions> = {}) {
  const given = {model: scratch('mixture'), out: scratch('cut'), method: cmoe(words), seed: 5, calibration, profile};
  return splitExperts({...given, ...more});
}

async function logitsIn(path: string): Promise<Float32Array> {
  const model = await loadModel(path);
  const logits = await logitsOf(model, sequences);
  model.dispose();
  return logits;
}

/** Largest difference over the largest expected number. */
function distance(received: Float32Array, expected: Float32Array): number {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  return received.reduce((most, x, i) => Math.max(most, Math.abs(x - expected[i]!)), 0) / largest;
}

/** All numbers of a model in order, but for norms and the routers inside experts. */
async function numbersOf(path: string): Promise<Float32Array> {
  const tensors = await openTensors(path);
  const names = tensors.names.filter((name) => !/norm(_\w)?\.weight$|\.experts\.\d+\.gate(_up)?\.weight/.test(name));
  const parts = await Promise.all(names.map((name) => tensors.read(name)));
  await tensors.close();
  return Float32Array.from(parts.flatMap((part) => [...part])).sort();
}

describe('the experts of a mixture that are cut once more', () => {
  for (const engine of ['wasm', 'tensorflow-compiled'] as const) {
    onEngine(engine, 'are what they were if all inside them are active at weight one', async () => {
      await mixture();
      await cut({topK: 5});
      const [expected, received] = [await logitsIn(scratch('mixture')), await logitsIn(scratch('cut'))];
      expect(distance(received, expected)).toBeLessThan(1e-5);
      await cut({topK: 1}, {out: scratch('sparse')});
      expect(distance(await logitsIn(scratch('sparse')), expected)).toBeGreaterThan(1e-2);
    });
  }

  const PARENTS: Readonly<Record<string, Architecture>> = {
    'with layers of all kinds': MIXTURE,
    'with biases': tiny([{...LAYER, expertBias: true}]),
    'with a gate of its shared expert': tiny([{...LAYER, sharedWidth: 8, sharedGate: true}]),
    'with representative routers': tiny([{...LAYER, router: 'representative'}]),
    'whose experts weigh one': {
      ...tiny([LAYER]),
      routing: {...MIXTURE.routing, order: 'topk-then-score', weight: 'one'},
    },
  };
  for (const [name, architecture] of Object.entries(PARENTS)) {
    onEngine('wasm', `are proved against a parent ${name}`, async () => {
      await mixture(architecture);
      await cut();
      const proof = await proveConversion(scratch('mixture'), scratch('cut'), sequences);
      expect(proof).toMatchObject({passed: true});
      expect(proof.maxLogitDifference).toBeLessThan(proof.limit / 5);
    });
  }

  for (const [name, apart] of [
    ['granitemoeshared', 'granite'],
    ['dbrx', 'olmo'],
  ] as const) {
    onEngine('wasm', `are by themselves where those of ${name} stand together in tensors`, async () => {
      const model = `test/fixtures/family/${name}`;
      const words = new Int32Array(calibration.tokens.map((token) => token % 64));
      const {architecture, parent} = await cut(
        {experts: 3, shared: 1, topK: 3},
        {model, calibration: {...calibration, tokens: words}, profile: profileSchema.parse({markers: {count: 2}})},
      );
      expect([parent.family, architecture.family]).toEqual([name, apart]);
      expect(await proveConversion(model, scratch('cut'), [[...words.subarray(0, S)]])).toMatchObject({passed: true});
      expect(await numbersOf(scratch('cut'))).toEqual(await numbersOf(model));
    });
  }

  onEngine('wasm', 'are proved against nothing else', async () => {
    await mixture();
    await cut();
    await writeModel(scratch('other'), MIXTURE, (spec, values) =>
      spec.path === 'layers.0.ffn.experts.down' ? values.map((x, i) => (i === 3 ? 9 : 8 * x)) : large(spec, values),
    );
    expect(await proveConversion(scratch('other'), scratch('cut'), sequences)).toMatchObject({passed: false});
  });

  onEngine('wasm', 'of one expert are the flat cut of its FFN', async () => {
    await writeModel(scratch('dense'), tiny([{kind: 'dense', width: F}]), large);
    const whole = splitOptions({method: 'contiguous', experts: 1, topK: 1});
    await convert({model: scratch('dense'), out: scratch('mixture'), method: whole, seed: 5});
    await cut();
    const source = await openDense(scratch('dense'));
    const watched = await profileText(source, calibration, {profile, partial: scratch('partial')});
    await source.folder.close();
    await convert({model: scratch('dense'), out: scratch('flat'), method: cmoe(), seed: 5, profile: watched});
    expect(await readNeuronMaps(scratch('cut'))).toEqual(await readNeuronMaps(scratch('flat')));
    expect(distance(await logitsIn(scratch('cut')), await logitsIn(scratch('flat')))).toBeLessThan(1e-5);
  });

  onEngine('wasm', 'have each of their neurons once, with its bits', async () => {
    await mixture();
    await cut();
    const maps = await readNeuronMaps(scratch('cut'));
    expect(maps.map(({length}) => length)).toEqual([G * F, 0, G * F]);
    const [before, after] = [await openTensors(scratch('mixture')), await openTensors(scratch('cut'))];
    for (const [layer, map] of [
      [0, maps[0]!],
      [2, maps[2]!],
    ] as const) {
      for (let g = 0; g < G; g++) {
        const prefix = `model.layers.${layer}.mlp.experts.${g}`;
        const rows = await rowsIn(before, `${prefix}.up_proj.weight`);
        const places = [...map.subarray(g * F, (g + 1) * F)];
        for (const place of [-1, 0, 1, 2, 3, 4]) {
          const ids = places.flatMap((at, id) => (at === place ? [id] : []));
          expect(ids).toHaveLength(place < 0 ? 9 : 3);
          const name = place < 0 ? `${prefix}.up_proj.weight` : `${prefix}.experts.${place}.up_proj.weight`;
          expect(await rowsIn(after, name)).toEqual(ids.map((id) => rows[id]!));
        }
      }
    }
    await before.close();
    await after.close();
  });

  onEngine('wasm', 'leave all else as it was, and are the same again', async () => {
    await mixture();
    await cut();
    await cut({}, {out: scratch('again')});
    const names = (await readdir(scratch('cut'))).sort();
    expect(names).toEqual((await readdir(scratch('again'))).sort());
    for (const name of names) {
      expect(await readFile(join(scratch('again'), name))).toEqual(await readFile(join(scratch('cut'), name)));
    }
    const [before, after] = [await openTensors(scratch('mixture')), await openTensors(scratch('cut'))];
    const kept = before.names.filter((name) => !/\.experts\.\d+\./.test(name));
    for (const name of kept) expect(await after.readBytes(name), name).toEqual(await before.readBytes(name));
    await before.close();
    await after.close();
  });

  onEngine('wasm', 'are told of in the record', async () => {
    await mixture();
    const {architecture, provenance, parent} = await cut({weights: 'score'});
    expect(architecture.ffn[0]).toEqual({
      ...LAYER,
      expertWidth: 9,
      inner: {experts: 5, topK: 2, expertWidth: 3, weight: 'score'},
    });
    expect(parent).toEqual(MIXTURE);
    expect(await readProvenance(scratch('cut'))).toEqual(provenance);
    const layer = {experts: G, topK: 2, numNeurons: F, sharedWidth: 9, unreached: []};
    expect(provenance.layers[0]).toEqual({...layer, inner: {experts: 5, topK: 2, expertWidth: 3}});
    expect(provenance.layers[1]).toBeNull();
    const source = await openSource(scratch('mixture'));
    await source.folder.close();
    expect(provenance.source).toEqual({path: scratch('mixture'), revision: null, fingerprint: source.fingerprint});
  });

  onEngine('wasm', 'are named where no token reaches them, and cut in the order of their neurons', async () => {
    // The columns of experts 1 and 3 are those of experts 0 and 2, which win the tie.
    const tied = (spec: ParameterSpec, values: Float32Array): Float32Array => {
      const found = large(spec, values);
      return spec.role === 'router' ? found.map((_, i) => found[i - (i % 2)]!) : found;
    };
    await mixture(tiny([{...LAYER, topK: 1}]), tied);
    const {provenance} = await cut();
    expect(provenance.layers[0]?.unreached).toEqual([1, 3]);
    expect(unreachedTexts(provenance.layers)).toEqual([
      'layer 0: no calibration token reached experts 1, 3; they are cut in the order of the neurons. More or other text may reach them: raise profile.samplesPerTask, or add sources.',
    ]);
    const [map] = await readNeuronMaps(scratch('cut'));
    expect([...map!.subarray(F, F + 9)]).toEqual(new Array(9).fill(-1));
    expect(await proveConversion(scratch('mixture'), scratch('cut'), sequences)).toMatchObject({passed: true});
  });

  onEngine('wasm', 'are only planned in a dry run', async () => {
    await mixture();
    expect(await cut({}, {dryRun: true})).toMatchObject({out: null, warnings: []});
    await expect(readdir(scratch('cut'))).rejects.toThrow('ENOENT');
  });
});

async function rowsIn(tensors: Awaited<ReturnType<typeof openTensors>>, name: string): Promise<number[][]> {
  const [rows = 0] = tensors.info(name).shape;
  const found: number[][] = [];
  for (let row = 0; row < rows; row++) found.push([...(await tensors.readRows(name, row, row + 1))]);
  return found;
}

describe('watching experts', () => {
  const watch = async (of: 'plain' | 'normalised'): Promise<MarkerProfile[][]> => {
    const source = await openSource(scratch('mixture'));
    const found = await watchExperts(source, calibration, {count: 4, of});
    await source.folder.close();
    return found;
  };

  onEngine('wasm', 'marks neurons of each token in each of its experts', async () => {
    await mixture();
    const [first, dense, last] = await watch('plain');
    expect(dense).toEqual([]);
    for (const layer of [first!, last!]) {
      expect(layer).toHaveLength(G);
      const marked = layer.map(({marker_NM}) => marker_NM.length / 4);
      expect(marked.reduce((a, b) => a + b, 0)).toBe(J * S * LAYER.topK);
    }
  });

  for (const of of ['plain', 'normalised'] as const) {
    onEngine('wasm', `marks the same neurons wherever they stand (${of})`, async () => {
      await mixture(tiny([LAYER]));
      const expected = (await watch(of))[0]!;
      const order = Array.from({length: F}, (_, i) => (7 * i + 5) % F);
      await rm(scratch('mixture'), {recursive: true});
      await mixture(tiny([LAYER]), (spec, values) => permuted(spec, large(spec, values), order));
      const received = (await watch(of))[0]!;
      expect(received.map(({marker_NM}) => [...marker_NM].map((i) => order[i]!))).toEqual(
        expected.map(({marker_NM}) => [...marker_NM]),
      );
    });
  }
});

/** Neuron i of every expert is neuron order[i] of before. */
function permuted({path, shape}: ParameterSpec, values: Float32Array, order: readonly number[]): Float32Array {
  if (!path.includes('.experts.')) return values;
  const [, rows = 0, columns = 0] = shape;
  const isDown = path.endsWith('.down');
  return values.map((_, at) => {
    const [expert, row, column] = [Math.floor(at / (rows * columns)), Math.floor(at / columns) % rows, at % columns];
    const [from, to] = isDown ? [order[row]!, column] : [row, order[column]!];
    return values[(expert * rows + from) * columns + to]!;
  });
}

describe('the plan of experts', () => {
  it('goes along with neurons that change places', () => {
    // So many tokens, and neurons so different in how often they are marked, that no two are alike.
    const draw = createRng(6, 'markers');
    const markers = Array.from({length: 6000}, () => {
      const ranked = Array.from({length: F}, (_, i) => ({i, score: draw.uniform() ** (1 + i / F)}));
      return ranked.sort((a, b) => b.score - a.score).slice(0, 4);
    }).flatMap((marked) => marked.map(({i}) => i));
    const order = Array.from({length: F}, (_, i) => (11 * i + 3) % F);
    const planOf = (ids: readonly number[]): ExpertPlan =>
      planExperts([[{numNeurons: F, marker_NM: Int32Array.from(ids), numMarkers: 4}]], cmoe())[0]![0]!;
    const [before, after] = [planOf(markers), planOf(markers.map((id) => order.indexOf(id)))];
    const moved = (ids: Int32Array): number[] => [...ids].map((id) => order[id]!).sort((a, b) => a - b);
    expect(moved(after.shared)).toEqual([...before.shared]);
    expect(after.experts.map(moved)).toEqual(before.experts.map((ids) => [...ids]));
    expect([...after.representatives].map((id) => order[id]!)).toEqual([...before.representatives]);
  });
});

describe('a mixture is refused', () => {
  const refusal = async (words: object, more: Partial<SplitExpertsOptions> = {}) => {
    const refused = cut(words, {where: 'x.yaml:7:5', ...more});
    return refused.then(
      () => new Error('it was not refused'),
      (error: unknown) => error as Error & {hint?: string},
    );
  };

  it('whose experts the counts do not cut, naming those that do', async () => {
    await mixture();
    const error = await refusal({experts: 6, shared: 1});
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toBe(
      'x.yaml:7:5: experts + shared (= 7) must divide the 24 neurons of the experts of layer 0; nearest that do: 6 and 8.',
    );
  });

  it('that is none', async () => {
    await mixture(tiny([{kind: 'dense', width: F}]));
    const error = await refusal({});
    expect(error).toBeInstanceOf(ModelError);
    expect(error.message).toBe(`${scratch('mixture')}: no layer has experts to cut; a mixture is needed.`);
  });

  it('if nothing is to be shared', async () => {
    await mixture();
    expect(await refusal({experts: 8, shared: 0})).toMatchObject({
      message: `x.yaml:7:5: ${scratch('mixture')} is a mixture; cmoe keeps a shared part in each of its experts.`,
      hint: 'Set shared to 1 or more.',
    });
  });

  it.each([
    [{router: 'gate-mean'}, 'router representative only, not gate-mean'],
    [{allocation: 'sensitivity'}, 'allocation uniform only, not sensitivity'],
    [{repair: 'refit'}, 'repair none only, not refit'],
    [{router: 'mlp', weights: 'score', outputScale: 'match'}, 'router representative only, not mlp'],
    [{pad: true}, 'pad false only, not true'],
  ])('with %j', async (words, says) => {
    await mixture();
    const error = await refusal(words);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error.message).toBe(`x.yaml:7:5: ${scratch('mixture')} is a mixture; cmoe cuts its experts with ${says}.`);
  });

  it('with weights of one and a scaled score', async () => {
    await mixture();
    expect(await refusal({weights: 'one-plus-scaled'})).toMatchObject({
      message: expect.stringContaining(
        'cmoe cuts its experts with weights one or score, not one-plus-scaled',
      ) as string,
      hint: 'Set weights to one.',
    });
  });

  it('if more neurons are to be marked than an expert has', async () => {
    await mixture();
    const error = await refusal({}, {profile: profileSchema.parse({markers: {count: 25}})});
    expect(error.message).toBe(
      'x.yaml:7:5: profile.markers.count (25) is more than the 24 neurons of an expert of layer 0.',
    );
  });

  onEngine('wasm', 'if its experts have experts inside already', async () => {
    await mixture();
    await cut();
    const again = await refusal({}, {model: scratch('cut'), out: scratch('twice')});
    expect(again).toBeInstanceOf(ModelError);
    expect(again.message).toBe(`${scratch('cut')}: the experts of layer 0 have experts inside already.`);
    const flat = convert({model: scratch('cut'), out: scratch('twice'), method: cmoe(), seed: 5});
    await expect(flat).rejects.toMatchObject({
      message: `${scratch('cut')}: this is a mixture of experts already, cut out of ${scratch('mixture')} by cmoe; a dense model is needed.`,
      hint: 'Give the dense model that it was made from. Only method cmoe cuts a mixture: each of its experts once more.',
    });
  });
});
