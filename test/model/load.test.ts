import {existsSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {openModelFolder} from '../../src/format/model-folder.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {checkTensors, loadParameters} from '../../src/model/load.js';
import {loadModel} from '../../src/model/model.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {startWalk} from '../../src/model/walk.js';
import {ModelError} from '../../src/util/errors.js';
import {GOLDENS, hasGoldens, readJson, readTensors} from '../downcycle/golden.js';
import {useScratch} from '../format/scratch.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {logitsOf} from '../support/logits.js';
import {readIds, TINY_LLAMA, tinyArchitecture, tinyGolden, writeTinyLlama} from './tiny-llama.js';

const scratch = useScratch();
const GRANITE = fileURLToPath(new URL('../fixtures/family/granitemoeshared', import.meta.url));
const DBRX = fileURLToPath(new URL('../fixtures/family/dbrx', import.meta.url));
/** A folder of SmolLM2-135M-Instruct, too large for the repository. */
const SMOLLM2 = process.env.DOWNCYCLE_SMOLLM2 ?? '';

async function load(path: string): Promise<{leaves: [ParameterSpec, Float32Array][]; warnings: readonly string[]}> {
  const folder = await openModelFolder(path);
  const leaves: [ParameterSpec, Float32Array][] = [];
  try {
    const architecture = architectureFromConfig(folder.config, path);
    const warnings = await loadParameters(folder, architecture, (spec, values) => {
      leaves.push([spec, values]);
    });
    return {leaves, warnings};
  } finally {
    await folder.close();
  }
}

describe('loadParameters', () => {
  it('gives linear weights as [in, out] and tables as they are', async () => {
    const {leaves} = await load(TINY_LLAMA);
    const folder = await openModelFolder(TINY_LLAMA);
    const disk = await folder.tensors.read('model.layers.1.mlp.gate_proj.weight');
    const [spec, gate] = leaves.find(([{path}]) => path === 'layers.1.ffn.gate')!;
    expect(spec.shape).toEqual([16, 24]);
    for (let d = 0; d < 16; d++) for (let f = 0; f < 24; f++) expect(gate[d * 24 + f]).toBe(disk[f * 16 + d]);
    const [, embed] = leaves.find(([{path}]) => path === 'embed')!;
    expect(embed).toEqual(await folder.tensors.read('model.embed_tokens.weight'));
    await folder.close();
  });

  it('reads no parameter before the one before it is taken', async () => {
    const folder = await openModelFolder(TINY_LLAMA);
    const {tensors} = folder;
    const events: string[] = [];
    const watched = {
      ...tensors,
      read: (name: string) => {
        events.push('read');
        return tensors.read(name);
      },
      readRows: (name: string, begin: number, end: number) => {
        events.push('read'); // a matrix this small is one piece
        return tensors.readRows(name, begin, end);
      },
    };
    await loadParameters({tensors: watched}, tinyArchitecture, async () => {
      await new Promise((resolve) => setTimeout(resolve, 1));
      events.push('taken');
    });
    expect(events).toEqual(Array.from(events, (_, i) => (i % 2 === 0 ? 'read' : 'taken')));
    expect(events).toHaveLength(2 * tensors.names.length);
    await folder.close();
  });

  it('widens bfloat16', async () => {
    const {leaves} = await load(await writeTinyLlama(scratch('bf16'), {dtype: 'BF16'}));
    const exact = await load(TINY_LLAMA);
    const largest = leaves.map(([, values], i) =>
      values.reduce((most, value, at) => Math.max(most, Math.abs(value / exact.leaves[i]![1][at]! - 1)), 0),
    );
    expect(Math.max(...largest)).toBeLessThanOrEqual(2 ** -8);
    expect(Math.max(...largest)).toBeGreaterThan(0);
  });

  it('names a missing tensor and the shape it should have', async () => {
    const path = await writeTinyLlama(scratch('holed'), {without: 'model.layers.1.mlp.up_proj.weight'});
    await expect(load(path)).rejects.toThrow(ModelError);
    await expect(load(path)).rejects.toThrow('tensor "model.layers.1.mlp.up_proj.weight" is missing');
  });

  it('names several missing tensors, the first of them', async () => {
    const folder = await openModelFolder(TINY_LLAMA);
    const architecture = architectureFromConfig({...folder.config, num_hidden_layers: 3}, TINY_LLAMA);
    await folder.close();
    await expect(checkTensors(folder.tensors, architecture)).rejects.toThrow(
      `${TINY_LLAMA}: 9 tensors that config.json asks for are missing: model.layers.2.input_layernorm.weight, model.layers.2.self_attn.q_proj.weight, `,
    );
    await expect(checkTensors(folder.tensors, architecture)).rejects.toThrow(/ and 4 more\.$/);
  });

  it('names a tensor whose shape is not that of the config', async () => {
    const path = await writeTinyLlama(scratch('narrow'), {config: {intermediate_size: 20}});
    await expect(load(path)).rejects.toThrow(
      'tensor "model.layers.0.mlp.gate_proj.weight" has shape [24, 16], config.json asks for [20, 16]',
    );
  });

  it('names a tensor of several parameters whose shape is not that of the config', async () => {
    const folder = await openModelFolder(GRANITE);
    const architecture = architectureFromConfig({...folder.config, num_local_experts: 3}, GRANITE);
    const reading = loadParameters(folder, architecture, () => undefined);
    await expect(reading).rejects.toThrow(ModelError);
    const router = 'tensor "model.layers.0.block_sparse_moe.router.layer.weight" has shape [4, 24]';
    await expect(reading).rejects.toThrow(router);
    const wide = architectureFromConfig({...folder.config, intermediate_size: 20}, GRANITE);
    await expect(loadParameters(folder, wide, () => undefined)).rejects.toThrow(
      'tensor "model.layers.0.block_sparse_moe.input_linear.weight" has shape [4, 32, 24], config.json asks for [4, 40, 24]',
    );
    await folder.close();
  });

  it('reads one expert at a time of a tensor that holds all', async () => {
    const folder = await openModelFolder(GRANITE);
    const {tensors} = folder;
    const sizes: number[] = [];
    const readRows = async (name: string, begin: number, end: number): Promise<Float32Array> => {
      const values = await tensors.readRows(name, begin, end);
      if (name.includes('.input_linear.') && name.includes('block_sparse_moe')) sizes.push(values.length);
      return values;
    };
    const architecture = architectureFromConfig(folder.config, GRANITE);
    await loadParameters({tensors: {...tensors, readRows}}, architecture, () => undefined);
    expect(sizes).toEqual(new Array(2 * 2 * 4).fill(16 * 24)); // of two layers, gate and up of four experts
    await folder.close();
  });

  it('refuses weights that are no real numbers before anything is trained on them', async () => {
    const folder = await openModelFolder(await writeTinyLlama(scratch('model')));
    const {tensors} = folder;
    const info = (name: string) => ({...tensors.info(name), dtype: 'I32' as const});
    const load = loadParameters({tensors: {...tensors, info}}, tinyArchitecture, () => undefined);
    await expect(load).rejects.toThrow('tensor "model.embed_tokens.weight" is I32; real numbers are needed');
    await folder.close();
  });

  it('refuses weights of norms that have no place unless they are ones', async () => {
    const folder = await openModelFolder(DBRX);
    const {tensors} = folder;
    const architecture = architectureFromConfig(folder.config, DBRX);
    const name = 'transformer.blocks.1.norm_attn_norm.norm_2.weight';
    const read = async (asked: string): Promise<Float32Array> => {
      const values = await tensors.read(asked);
      return asked === name ? values.fill(0.5, 3, 4) : values;
    };
    const reading = loadParameters({tensors: {...tensors, read}}, architecture, () => undefined).then(
      () => new ModelError('it was read'),
      (thrown: unknown) => thrown as ModelError,
    );
    expect(await reading).toBeInstanceOf(ModelError);
    expect(await reading).toMatchObject({
      message: `${DBRX}/model.safetensors: tensor "${name}" has 0.5 at place 3; only ones are supported, since layer norms have no weights here.`,
      hint: expect.stringContaining('multiplied into the columns') as string,
    });
    const walking = startWalk({...folder, tensors: {...tensors, read}}, architecture, {
      tokens: Int32Array.of(1, 2),
      sequenceLength: 2,
    });
    await expect(walking).rejects.toThrow((await reading).message); // as evaluations go through a model
    const has = (asked: string): boolean => asked !== name && tensors.has(asked);
    await expect(loadParameters({tensors: {...tensors, has}}, architecture, () => undefined)).rejects.toThrow(
      `tensor "${name}" is missing`,
    );
    await folder.close();
  });

  it('says which tensors it has no place for', async () => {
    const extra = ['model.layers.7.mlp.gate.weight', 'model.layers.0.self_attn.q_norm.weight'];
    const path = await writeTinyLlama(scratch('extra'), {extra});
    expect((await load(path)).warnings).toEqual([
      `${path}: config.json does not ask for tensor ${extra[0]}; ignored.`,
      `${path}: a llama model has no tensor ${extra[1]}; ignored.`,
    ]);
  });

  it('says it of a head that the config ties to the embedding', async () => {
    const path = await writeTinyLlama(scratch('tied'), {config: {tie_word_embeddings: true}});
    expect((await load(path)).warnings).toEqual([
      `${path}: config.json does not ask for tensor lm_head.weight; ignored.`,
    ]);
  });

  it('is silent about the rotation tables that old versions saved', async () => {
    const path = await writeTinyLlama(scratch('old'), {extra: ['model.layers.0.self_attn.rotary_emb.inv_freq']});
    expect((await load(path)).warnings).toEqual([]);
  });
});

describe('a loaded model', () => {
  for (const engine of ['tensorflow-compiled', 'wasm'] as const) {
    onEngine(engine, 'computes the logits of transformers', () =>
      expectNoLeak(async () => {
        const model = await loadModel(TINY_LLAMA);
        const received = await logitsOf(model, [tinyGolden.ids]);
        model.dispose();
        expect(received).toBeAllClose(tinyGolden.logits, {rtol: 0, atol: 5e-6});
      }),
    );
  }
});

describe.skipIf(!hasGoldens)('golden logits', () => {
  onEngine('tensorflow-compiled', 'of stories260K', async () => {
    const golden = `${GOLDENS}/stories260k/golden.safetensors`;
    const model = await loadModel(`${GOLDENS}/stories260k/model`);
    const received = await logitsOf(model, [await readIds(golden, 'sequence_ids')]);
    model.dispose();
    expect(received).toBeAllClose(readTensors(golden).logits!, {rtol: 0, atol: 1e-4});
  });

  if (existsSync(SMOLLM2)) {
    onEngine('tensorflow-compiled', 'of SmolLM2 at eight positions', async () => {
      type Top = {position: number; ids: number[]; logits: number[]};
      const {top5} = readJson<{top5: Top[]}>(`${GOLDENS}/smollm2/golden.json`);
      const model = await loadModel(SMOLLM2);
      const received = await logitsOf(model, [await readIds(`${GOLDENS}/smollm2/golden.safetensors`, 'ids')]);
      model.dispose();
      const {vocab} = model.architecture;
      for (const {position, ids, logits} of top5) {
        const row = received.subarray(position * vocab, (position + 1) * vocab);
        const ranked = Array.from(row.keys()).sort((a, b) => row[b]! - row[a]!);
        expect(ranked.slice(0, 5)).toEqual(ids);
        expect(ids.map((id) => row[id]!)).toBeAllClose(logits, {rtol: 0, atol: 1e-3});
      }
    });
  }
});
