import {existsSync} from 'node:fs';
import {mkdir, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {type ConvertOptions, convert, planOf} from '../../src/downcycle/convert.js';
import type {SplitOptions} from '../../src/downcycle/options.js';
import {methodSchema} from '../../src/downcycle/options.js';
import {planConversion} from '../../src/downcycle/partition/plan-conversion.js';
import {type ConversionPlan, planHash} from '../../src/downcycle/plan.js';
import type {Profile} from '../../src/downcycle/profile-file.js';
import {readProvenance} from '../../src/downcycle/provenance.js';
import {type ModelFolder, openModelFolder} from '../../src/format/model-folder.js';
import {openSafetensors} from '../../src/format/safetensors.js';
import {SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {loadModel} from '../../src/model/model.js';
import {ConfigError, DataError, EnvironmentError, ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, tinyArchitecture, tinyGolden, writeTinyLlama} from '../model/tiny-llama.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

const scratch = useScratch();

/** Of 24 neurons the first 8 are shared, then four experts of 4: the split of the fixture's golden numbers. */
const contiguous = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2, outputScale: 'none'});
const SHARED = 8;
const WIDTH = 4;

function options(changes: Partial<ConvertOptions> = {}): ConvertOptions {
  return {model: TINY_LLAMA, out: scratch('moe'), method: contiguous, seed: 7, ...changes};
}

function expertWeaver(changes: Record<string, unknown> = {}): SplitOptions {
  const input = {method: 'expertweaver', experts: 4, shared: 2, topK: 2, allocation: 'uniform', ...changes};
  return methodSchema.parse(input) as SplitOptions;
}

async function inFolders<T>(use: (dense: ModelFolder, moe: ModelFolder) => Promise<T>, dense = TINY_LLAMA): Promise<T> {
  const [from, to] = [await openModelFolder(dense), await openModelFolder(scratch('moe'))];
  try {
    return await use(from, to);
  } finally {
    await from.close();
    await to.close();
  }
}

describe('convert', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'makes the model whose logits torch computes from the same split', () =>
      expectNoLeak(async () => {
        await convert(options());
        const model = await loadModel(scratch('moe'));
        const softmax = await logitsOf(model, [tinyGolden.ids]);
        const architecture = {...model.architecture, routing: {...SOFTMAX_ROUTING, weight: 'one' as const}};
        const ones = await logitsOf({...model, architecture}, [tinyGolden.ids]);
        model.dispose();
        expect(softmax).toBeAllClose(tinyGolden.splitSoftmaxLogits, {rtol: 0, atol: 5e-6});
        expect(ones).toBeAllClose(tinyGolden.splitLogits, {rtol: 0, atol: 5e-6});
      }),
    );
  }

  it.each(['F32', 'BF16', 'F16', 'F64'] as const)('moves weights of %s bit for bit', async (dtype) => {
    const model = await writeTinyLlama(scratch('dense'), {dtype});
    await convert(options({model}));
    await inFolders(async (dense, moe) => {
      const bytes = (folder: ModelFolder, name: string) =>
        folder.tensors.readBytes(`model.layers.1.mlp.${name}.weight`);
      const size = {F32: 4, BF16: 2, F16: 2, F64: 8}[dtype];
      for (const [part, first, width] of parts()) {
        for (const name of ['gate_proj', 'up_proj']) {
          const rows = (await bytes(dense, name)).slice(first * 16 * size, (first + width) * 16 * size);
          expect(await bytes(moe, `${part}.${name}`)).toEqual(rows);
        }
        const down = await bytes(dense, 'down_proj');
        const columns = Array.from({length: 16}, (_, d) => [
          ...down.slice((d * 24 + first) * size, (d * 24 + first + width) * size),
        ]);
        expect([...(await bytes(moe, `${part}.down_proj`))]).toEqual(columns.flat());
      }
    }, model);
  });

  it('leaves everything outside the FFNs as it is', async () => {
    const model = await writeTinyLlama(scratch('dense'), {
      dtype: 'BF16',
      files: {'tokenizer.json': '{"é": 1}', 'generation_config.json': '{}'},
      config: {bos_token_id: 3, unknown_key: [1]},
    });
    await convert(options({model}));
    await inFolders(async (dense, moe) => {
      const outside = dense.tensors.names.filter((name) => !name.includes('.mlp.'));
      for (const name of outside)
        expect(await moe.tensors.readBytes(name)).toEqual(await dense.tensors.readBytes(name));
      expect(moe.config).toMatchObject({bos_token_id: 3, unknown_key: [1], dtype: 'float32', hidden_size: 16});
      for (const name of dense.tokenizerFiles) {
        expect(await readFile(`${moe.path}/${name}`)).toEqual(await readFile(`${dense.path}/${name}`));
      }
      expect(dense.tokenizerFiles).toHaveLength(2);
    }, model);
  });

  it('makes router rows the means of gate rows, in float32 whatever the source', async () => {
    const model = await writeTinyLlama(scratch('dense'), {dtype: 'BF16'});
    await convert(options({model}));
    await inFolders(async (dense, moe) => {
      const gate = await dense.tensors.read('model.layers.0.mlp.gate_proj.weight');
      const mean = (e: number, d: number): number => {
        const rows = Array.from({length: WIDTH}, (_, i) => gate[(SHARED + e * WIDTH + i) * 16 + d]!);
        return rows.reduce((sum, x) => sum + x, 0) / WIDTH;
      };
      const expected = Array.from({length: 4 * 16}, (_, at) => mean(Math.floor(at / 16), at % 16));
      expect(moe.tensors.info('model.layers.0.mlp.gate.weight')).toMatchObject({dtype: 'F32', shape: [4, 16]});
      expect(await moe.tensors.read('model.layers.0.mlp.gate.weight')).toBeAllClose(expected, {rtol: 1e-6, atol: 0});
    }, model);
  });

  it('needs no shared expert', async () => {
    await convert(
      options({method: splitOptions({method: 'contiguous', experts: 6, shared: 0, topK: 2, outputScale: 'none'})}),
    );
    await inFolders(async (_, moe) => {
      expect(moe.tensors.names.filter((name) => name.includes('shared'))).toEqual([]);
    });
  });

  it('multiplies down projections of routed experts by the factor of their layer', async () => {
    const routedScale = [2, 0.75];
    await convert(
      options({
        method: expertWeaver({outputScale: 'match'}),
        profile: await tinyProfile(),
        routedScale,
        out: scratch('moe'),
      }),
    );
    const plain = await convert(options({method: expertWeaver(), profile: await tinyProfile(), out: scratch('plain')}));
    const unscaled = await openModelFolder(plain.out!);
    await inFolders(async (_, moe) => {
      for (const [layer, scale] of routedScale.entries()) {
        const read = ({tensors}: ModelFolder, name: string) => tensors.read(`model.layers.${layer}.mlp.${name}.weight`);
        for (const name of ['experts.3.gate_proj', 'experts.3.up_proj', 'shared_expert.down_proj', 'gate']) {
          expect(await read(moe, name)).toEqual(await read(unscaled, name));
        }
        const expected = (await read(unscaled, 'experts.3.down_proj')).map((x) => x * scale);
        expect(await read(moe, 'experts.3.down_proj')).toEqual(expected);
      }
    });
    await unscaled.close();
    const provenance = await readProvenance(scratch('moe'));
    expect(provenance.kind === 'split' && provenance.layers.map((layer) => layer.routedScale)).toEqual(routedScale);
  });

  it('records where it came from', async () => {
    const profile = await tinyProfile();
    const method = expertWeaver();
    const {provenance} = await convert(options({method, profile, revision: 'abc'}));
    const gateRows = () => Promise.reject(new Error('nobody asks for weights'));
    const plan = await planConversion({method, profiles: profile.layers, gateRows, cv: 'tasks', seed: 7, where: ''});
    expect(await readProvenance(scratch('moe'))).toEqual(provenance);
    expect(provenance).toMatchObject({
      kind: 'split',
      seed: 7,
      source: {path: TINY_LLAMA, revision: 'abc', fingerprint: profile.metadata.model.fingerprint},
      method,
      calibration: {tasks: profile.metadata.tasks, tokenHash: profile.metadata.tokenHash},
      neuronMapHash: planHash(plan),
      equivalence: null,
    });
    expect(provenance.layers).toMatchObject([
      {experts: 4, topK: 2, expertWidth: 4, sharedWidth: 8, routedScale: 1},
      {experts: 4, topK: 2, expertWidth: 4, sharedWidth: 8, routedScale: 1},
    ]);
    expect(provenance.layers.map(({specialisedShare}) => specialisedShare)).not.toContain(null);
  });

  it('gives the same bytes for the same options', async () => {
    const random = splitOptions({method: 'random', experts: 4, shared: 2, topK: 2, outputScale: 'none'});
    const bytes: Buffer[][] = [];
    for (const [name, seed] of [
      ['a', 1],
      ['b', 1],
      ['c', 2],
    ] as const) {
      const out = scratch(name);
      await convert(options({method: random, seed, out}));
      const files = (await readdir(out)).sort();
      bytes.push(await Promise.all(files.map((file) => readFile(`${out}/${file}`))));
    }
    expect(bytes[1]).toEqual(bytes[0]);
    expect(bytes[2]).not.toEqual(bytes[0]);
  });

  it('counts parameters and plans, and writes nothing, in a dry run', async () => {
    const planned = await convert(options({dryRun: true}));
    expect(existsSync(scratch('moe'))).toBe(false);
    const {out, ...done} = await convert(options());
    expect(planned).toEqual({...done, out: null});
    expect(out).toBe(scratch('moe'));
    const router = 2 * 4 * 16;
    expect(done.moe.total).toBe(done.dense.total + router);
    expect(done.moe.active).toBe(done.dense.total + router - 2 * 3 * 16 * (2 * WIDTH));
  });

  it('tells how far it is', async () => {
    const seen: [number, number][] = [];
    await convert(options(), (done, total) => seen.push([done, total]));
    const numTensors = await inFolders(async (_, {tensors}) => tensors.names.length);
    expect(seen).toEqual(Array.from({length: numTensors}, (_, i) => [i + 1, numTensors]));
  });
});

describe('convert refuses', () => {
  it('counts that do not cut the FFN, naming those that do', async () => {
    const method = splitOptions({method: 'random', experts: 4, shared: 1, topK: 2, outputScale: 'none'});
    const converted = convert(options({method, where: 'config.yaml:3:5'}));
    await expect(converted).rejects.toThrow(ConfigError);
    await expect(converted).rejects.toThrow(
      'config.yaml:3:5: experts + shared (= 5) must divide the FFN width 24; nearest that do: 4 and 6',
    );
  });

  const ONLY_CMOE = 'Only method cmoe cuts a mixture: each of its experts once more.';

  it('a model that is a mixture already', async () => {
    await convert(options());
    const again = convert(options({model: scratch('moe'), out: scratch('twice')}));
    await expect(again).rejects.toThrow(ModelError);
    await expect(again).rejects.toThrow(
      expect.objectContaining({
        message: `${scratch('moe')}: this is a mixture of experts already, cut out of ${TINY_LLAMA} by contiguous; a dense model is needed.`,
        hint: `Give the dense model that it was made from: ${TINY_LLAMA}. ${ONLY_CMOE}`,
      }),
    );
    await rm(scratch('moe/downcycle.json'));
    await expect(convert(options({model: scratch('moe'), out: scratch('twice')}))).rejects.toThrow(
      expect.objectContaining({hint: `Give the dense model that it was made from. ${ONLY_CMOE}`}),
    );
  });

  it('a method that looks at activations without a profile', async () => {
    const converted = convert(options({method: expertWeaver()}));
    await expect(converted).rejects.toThrow(ConfigError);
    await expect(converted).rejects.toThrow('method expertweaver needs a profile');
  });

  it('gate rows that are not finite, naming the tensor and the row', async () => {
    const model = await writeTinyLlama(scratch('dense'));
    const path = `${model}/model.safetensors`;
    const file = await openSafetensors(path);
    const {begin} = file.info('model.layers.1.mlp.gate_proj.weight');
    await file.close();
    const bytes = await readFile(path);
    bytes.writeFloatLE(Number.NaN, begin + (3 * 16 + 2) * 4);
    await writeFile(path, bytes);
    const method = splitOptions({method: 'moefication', experts: 4, topK: 2});
    const converted = convert(options({model, method}));
    await expect(converted).rejects.toThrow(ModelError);
    await expect(converted).rejects.toThrow('tensor "model.layers.1.mlp.gate_proj.weight" has NaN in row 3.');
  });

  it.each([
    ['other weights', (model: Profile['metadata']['model']) => ({...model, fingerprint: 'f'.repeat(64)})],
    ['other layers', (model: Profile['metadata']['model']) => ({...model, layers: 3})],
    ['another width', (model: Profile['metadata']['model']) => ({...model, ffnWidth: 48})],
  ])('a profile of a model with %s', async (_, change) => {
    const {layers, metadata} = await tinyProfile();
    const profile = {layers, metadata: {...metadata, model: change(metadata.model)}};
    await expect(convert(options({method: expertWeaver(), profile}))).rejects.toThrow(DataError);
  });

  it('outputScale match without a factor for each layer', async () => {
    const method = expertWeaver({outputScale: 'match'});
    const profile = await tinyProfile();
    for (const routedScale of [undefined, [1], [1, 0], [1, Number.NaN]]) {
      const converted = convert(options({method, profile, ...(routedScale && {routedScale})}));
      await expect(converted).rejects.toThrow(ConfigError);
      await expect(converted).rejects.toThrow('outputScale match needs 2 factors');
    }
  });

  it('factors that nothing asked for', async () => {
    await expect(convert(options({routedScale: [1, 2]}))).rejects.toThrow('outputScale is not match');
  });

  it('to write where something stands, before it reads the model', async () => {
    await mkdir(scratch('moe'));
    const converted = convert(options({model: scratch('nowhere')}));
    await expect(converted).rejects.toThrow(EnvironmentError);
    await expect(converted).rejects.toThrow('already exists');
  });

  it('a model whose tensors are not those of its config', async () => {
    const model = await writeTinyLlama(scratch('dense'), {without: 'model.layers.0.mlp.down_proj.weight'});
    await expect(convert(options({model}))).rejects.toThrow('tensor "model.layers.0.mlp.down_proj.weight" is missing');
  });

  it('to leave anything behind when it stops in the middle', async () => {
    await mkdir(scratch('outputs'));
    const stop = (done: number): void => {
      if (done === 5) throw new Error('stopped');
    };
    await expect(convert(options({out: scratch('outputs/moe')}), stop)).rejects.toThrow('stopped');
    expect(await readdir(scratch('outputs'))).toEqual([]);
  });

  it('a plan of another method or another model', async () => {
    const plan = await planOf(options());
    const cases: [ConversionPlan, string][] = [
      [{...plan, method: 'cmoe'}, "the plan is cmoe's of 2 layers of 24 neurons; "],
      [{...plan, layers: plan.layers.slice(1)}, 'of 1 layers of 24 neurons; '],
      [{...plan, padding: 3}, 'of 2 layers of 21 neurons; '],
    ];
    for (const [other, message] of cases) {
      const refused = convert(options({plan: other}));
      await expect(refused).rejects.toThrow(ConfigError);
      await expect(refused).rejects.toThrow(message);
    }
    await expect(readdir(scratch('moe'))).rejects.toThrow('ENOENT');
    expect((await convert(options({plan}))).provenance.neuronMapHash).toBe(planHash(plan));
  });

  it('silently dropping tensors: it passes the warnings on', async () => {
    const model = await writeTinyLlama(scratch('dense'), {extra: ['model.layers.9.mlp.gate_proj.weight']});
    expect((await convert(options({model}))).warnings).toHaveLength(1);
  });
});

function parts(): [string, number, number][] {
  const experts = Array.from({length: 4}, (_, e): [string, number, number] => [
    `experts.${e}`,
    SHARED + e * WIDTH,
    WIDTH,
  ]);
  return [['shared_expert', 0, SHARED], ...experts];
}

it('the fixture is what these numbers say', () => {
  expect(tinyArchitecture.ffn).toEqual([
    {kind: 'dense', width: 24},
    {kind: 'dense', width: 24},
  ]);
});
