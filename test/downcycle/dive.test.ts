import {existsSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {readKeptNeurons} from '../../src/downcycle/dive/kept-neurons.js';
import {type DiveConvertOptions, dive} from '../../src/downcycle/dive.js';
import {diveSchema} from '../../src/downcycle/dive-options.js';
import {NEURONS_FILE, readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {proveConversion} from '../../src/downcycle/proof.js';
import {PROVENANCE_FILE, readProvenance} from '../../src/downcycle/provenance.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {initialValues} from '../../src/model/init.js';
import {loadParameters} from '../../src/model/load.js';
import {parameterSpecs} from '../../src/model/parameters.js';
import {saveModel} from '../../src/model/save.js';
import {ConfigError, DataError, EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {type ReferenceModel, referenceLogits} from '../golden/reference.js';
import {TINY_LLAMA, tinyArchitecture, writeTinyLlama} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine, withEngine} from '../support/engines.js';
import {biasByHand, F, prunedByHand, prunedReference, tinyCalibration, tinyWeights, watched} from './dive/tiny-dive.js';

const scratch = useScratch();
const [E, WIDTH, D] = [2, 12, 16];
const calibration = tinyCalibration();
const method = diveSchema.parse({method: 'dive', experts: E, topK: 1});

async function options(changes: Partial<DiveConvertOptions> = {}): Promise<DiveConvertOptions> {
  const model = changes.model ?? TINY_LLAMA;
  const profile = await watched(calibration, scratch('partial'), model);
  return {model, out: scratch('moe'), method, seed: 7, profile, calibration, ...changes};
}

/** The parameters of a folder by path, in our layout. */
async function read(path: string): Promise<Record<string, {values: Float32Array}>> {
  const folder = await openModelFolder(path);
  const leaves: Record<string, {values: Float32Array}> = {};
  await loadParameters(folder, architectureFromConfig(folder.config, path), (spec, values) => {
    leaves[spec.path] = {values};
  });
  await folder.close();
  return leaves;
}

/** The model that a mixture is where every token goes to one expert. */
function onlyExpert(leaves: Awaited<ReturnType<typeof read>>, expert: number): ReferenceModel {
  const weights: Record<string, {values: ArrayLike<number>}> = {...leaves};
  for (const layer of [0, 1]) {
    for (const [name, size] of [
      ['experts.gate', D * WIDTH],
      ['experts.up', D * WIDTH],
      ['experts.down', D * WIDTH],
      ['expertBias', D],
    ] as const) {
      const {values} = leaves[`layers.${layer}.ffn.${name}`]!;
      weights[`layers.${layer}.ffn.${name}`] = {values: values.slice(expert * size, (expert + 1) * size)};
    }
    weights[`layers.${layer}.ffn.router`] = {values: new Float32Array(D)};
  }
  const layout = {
    kind: 'moe',
    experts: 1,
    topK: 1,
    expertWidth: WIDTH,
    sharedWidth: 0,
    selectionBias: false,
    router: 'linear',
    expertBias: true,
  } as const;
  return {architecture: {...tinyArchitecture, ffn: [layout, layout]}, weights};
}

describe('dive', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'makes each expert the dense FFN pruned on its tasks, with a bias', async () => {
      const how = await options();
      const {provenance, kept} = await expectNoLeak(() => dive(how));
      const weights = await tinyWeights();
      const leaves = await read(scratch('moe'));
      const lists = await readKeptNeurons(scratch('moe'));
      expect(provenance.affinity.clusters.flat().sort()).toEqual([0, 1, 2]);
      for (const [e, tasks] of provenance.affinity.clusters.entries()) {
        for (const layer of [0, 1]) {
          const {kept: neurons, means} = prunedByHand(how.profile, layer, tasks, WIDTH);
          expect([...lists[layer]![e]!]).toEqual(neurons);
          const bias = leaves[`layers.${layer}.ffn.expertBias`]!.values.subarray(e * D, (e + 1) * D);
          expect(bias).toBeAllClose(biasByHand(weights[`layers.${layer}.ffn.down`]!.values, neurons, means));
        }
        const alone = prunedReference(weights, how.profile, tasks, WIDTH);
        const tokens = [...calibration.tokens.subarray(0, 16)];
        const expected = referenceLogits(alone, tokens);
        expect(referenceLogits(onlyExpert(leaves, e), tokens)).toBeAllClose(expected, {rtol: 1e-6, atol: 1e-6});
      }
      for (const counts of kept) {
        expect(counts.reduce((a, b) => a + b, 0)).toBe(F);
        expect(counts.reduce((sum, count, keepers) => sum + count * keepers, 0)).toBe(E * WIDTH);
      }
    });
  }

  onEngine('wasm', 'clusters by what pruned models make of the text, and records all of it', async () => {
    const {architecture, provenance} = await dive(await options());
    const layout = {
      kind: 'moe',
      experts: E,
      topK: 1,
      expertWidth: WIDTH,
      sharedWidth: 0,
      selectionBias: false,
      router: 'linear',
      expertBias: true,
    };
    expect(architecture).toEqual({
      ...tinyArchitecture,
      ffn: [layout, layout],
      routing: {...SOFTMAX_ROUTING, renormalise: true},
    });
    const recorded = await readProvenance(scratch('moe'));
    expect(recorded).toEqual(provenance);
    expect(recorded).toMatchObject({
      kind: 'prune',
      seed: 7,
      method,
      calibration: {tasks: ['prose', 'code', 'verse'], tokenHash: 'h'},
      numNeurons: F,
      expertWidth: WIDTH,
      equivalence: null,
    });
    const {perplexity, correlation} = provenance.affinity;
    for (const matrix of [perplexity, correlation]) expect(matrix.map((row) => row.length)).toEqual([3, 3, 3]);
    const folder = await openModelFolder(scratch('moe'));
    expect(architectureFromConfig(folder.config, 'moe')).toEqual(architecture);
    await folder.close();
  });

  onEngine('wasm', 'gives the same bytes for the same seed, and another router for another', async () => {
    for (const [name, seed] of Object.entries({a: 1, b: 1, c: 2}))
      await dive(await options({out: scratch(name), seed}));
    const bytes = (name: string, file: string): Buffer => readFileSync(join(scratch(name), file));
    for (const file of ['model.safetensors', 'config.json', PROVENANCE_FILE, NEURONS_FILE]) {
      expect(bytes('b', file), file).toEqual(bytes('a', file));
    }
    const [a, c] = [await read(scratch('a')), await read(scratch('c'))];
    const changed = Object.keys(a).filter((path) => a[path]!.values.some((value, i) => value !== c[path]!.values[i]));
    expect(changed).toEqual(['layers.0.ffn.router', 'layers.1.ffn.router']);
    const {ffn} = parameterSpecs((await dive(await options({dryRun: true}))).architecture).layers[1]!;
    if (ffn.kind === 'dense') throw new Error('dense');
    expect(a['layers.1.ffn.router']!.values).toEqual(initialValues(ffn.router, tinyArchitecture, 1));
  });

  onEngine('wasm', 'keeps the dtype of the source, biases with their down projections', async () => {
    const model = await writeTinyLlama(scratch('dense'), {dtype: 'BF16'});
    const how = await options({model});
    const {bytes, kept} = await dive(how);
    const folder = await openModelFolder(scratch('moe'));
    const name = 'model.layers.1.mlp.experts.1.down_proj';
    expect(folder.tensors.info(`${name}.bias`)).toMatchObject({dtype: 'BF16', shape: [D]});
    expect(folder.tensors.info(`${name}.weight`)).toMatchObject({dtype: 'BF16', shape: [D, WIDTH]});
    expect(folder.tensors.info('model.layers.1.mlp.gate.weight').dtype).toBe('F32');
    await folder.close();
    expect(await dive({...how, out: scratch('none'), dryRun: true})).toMatchObject({bytes, kept, out: null});
    expect(existsSync(scratch('none'))).toBe(false);
  });

  onEngine('wasm', 'is loaded and saved without a change', async () => {
    const {architecture} = await dive(await options());
    const leaves = await read(scratch('moe'));
    await saveModel(scratch('again'), {architecture, dtype: 'F32', read: ({path}) => leaves[path]!.values});
    expect(await read(scratch('again'))).toEqual(leaves);
  });
});

describe('the proof of dive', () => {
  const sequences = [[...calibration.tokens.subarray(0, 24)], [...calibration.tokens.subarray(70, 94)]];

  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'passes where nothing is left out: every expert is the dense FFN, its bias 0', async () => {
      await dive(await options({method: {...method, keep: 1}}));
      const [weights, leaves] = [await tinyWeights(), await read(scratch('moe'))];
      const {values} = leaves['layers.1.ffn.experts.up']!;
      for (const e of [0, 1]) {
        expect(values.slice(e * D * F, (e + 1) * D * F)).toEqual(weights['layers.1.ffn.up']!.values);
      }
      expect(new Set(leaves['layers.0.ffn.expertBias']!.values)).toEqual(new Set([0]));
      const proof = await expectNoLeak(() => proveConversion(TINY_LLAMA, scratch('moe'), sequences));
      expect(proof.passed).toBe(true);
      expect(proof.maxLogitDifference).toBeLessThan(1e-5);
    });
  }

  onEngine('wasm', 'is refused where neurons were left out, and says so', async () => {
    await dive(await options());
    await expect(proveConversion(TINY_LLAMA, scratch('moe'), sequences)).rejects.toThrow(
      'is not meant to equal a dense model: each expert keeps 50% of the neurons, the mean of the others is its bias.',
    );
  });
});

describe('dive refuses', () => {
  const refused = (changes: Partial<DiveConvertOptions>) =>
    withEngine('wasm', async () => dive(await options({out: scratch('x'), where: 'x.yaml:3:5', ...changes})));

  it('fewer tasks than experts', async () => {
    const some = refused({method: {...method, experts: 4}});
    await expect(some).rejects.toThrow(ConfigError);
    await expect(some).rejects.toThrow(
      'x.yaml:3:5: method dive makes each expert of a cluster of tasks; 3 tasks cannot be put into 4 clusters.',
    );
    expect(existsSync(scratch('x'))).toBe(false);
  });

  it('experts without neurons', async () => {
    await expect(refused({method: {...method, keep: 0.02}})).rejects.toThrow(
      'x.yaml:3:5: keep 0.02 of 24 neurons leaves an expert none. Raise keep.',
    );
  });

  it('a profile of another text', async () => {
    const some = refused({calibration: {...calibration, hash: 'other'}});
    await expect(some).rejects.toThrow(DataError);
    await expect(some).rejects.toThrow('the profile was made on other text than the one that pruned models are');
  });

  it('a profile of another model', async () => {
    const {profile} = await withEngine('wasm', () => options());
    const model = await writeTinyLlama(scratch('other'), {zeroed: 'model.layers.0.mlp.up_proj.weight'});
    await expect(refused({model, profile})).rejects.toThrow('The profile was made of another model than');
  });

  it('a mixture', async () => {
    await withEngine('wasm', async () => dive(await options({out: scratch('mixture')})));
    const {profile} = await withEngine('wasm', () => options());
    await expect(refused({model: scratch('mixture'), profile})).rejects.toThrow(ModelError);
  });

  it('a folder that is there', async () => {
    await withEngine('wasm', async () => dive(await options()));
    await expect(refused({out: scratch('moe')})).rejects.toThrow(EnvironmentError);
  });

  it('to read lists of neurons out of a split, and a map out of pruned copies', async () => {
    await withEngine('wasm', async () => dive(await options()));
    await expect(readNeuronMaps(scratch('moe'))).rejects.toThrow('was not cut out of another model');
  });
});
