import {existsSync} from 'node:fs';
import {mkdir, readFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {openModelFolder} from '../../src/format/model-folder.js';
import type {Architecture, FfnLayout} from '../../src/model/architecture.js';
import {architectureFromConfig} from '../../src/model/config.js';
import {loadParameters} from '../../src/model/load.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {saveModel} from '../../src/model/save.js';
import {EnvironmentError, ModelError} from '../../src/util/errors.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {anyArchitecture, tinyArchitecture, writeTokenizer} from './tiny-llama.js';

const scratch = useScratch();

const EXPERTS = {
  ...{kind: 'moe', experts: 3, topK: 2, expertWidth: 8, sharedWidth: 4, selectionBias: false, router: 'linear'},
} as const satisfies FfnLayout;

const mixture: Architecture = {
  ...tinyArchitecture,
  attentionBias: 'qkvo',
  ffn: [
    {...EXPERTS, selectionBias: true},
    {kind: 'dense', width: 24},
  ],
};

async function values({path, shape}: ParameterSpec): Promise<Float32Array> {
  const rng = createRng(1, path);
  return Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, () => rng.normal());
}

async function load(path: string): Promise<Map<string, Float32Array>> {
  const folder = await openModelFolder(path);
  const leaves = new Map<string, Float32Array>();
  await loadParameters(
    folder,
    architectureFromConfig(folder.config, path),
    (spec, leaf) => void leaves.set(spec.path, leaf),
  );
  await folder.close();
  return leaves;
}

describe('saveModel', () => {
  it('is undone by loadParameters, bit for bit', async () => {
    let run = 0;
    await fc.assert(
      fc.asyncProperty(anyArchitecture, async (architecture) => {
        const path = scratch(`model-${run++}`);
        const written = new Map<string, Float32Array>();
        const read = async (spec: ParameterSpec): Promise<Float32Array> => {
          const leaf = await values(spec);
          written.set(spec.path, leaf);
          return leaf;
        };
        await saveModel(path, {architecture, read, dtype: 'F32'});
        expect(await load(path)).toEqual(written);
      }),
      {numRuns: 20},
    );
  });

  it('asks for each parameter once, however many tensors hold it, or parameters one tensor', async () => {
    const asked: string[] = [];
    const read = (spec: ParameterSpec): Promise<Float32Array> => {
      asked.push(spec.path);
      return values(spec);
    };
    for (const family of ['llama', 'granitemoeshared'] as const) {
      await saveModel(scratch(family), {architecture: {...mixture, family}, read, dtype: 'F32'});
      expect(new Set(asked).size).toBe(asked.length);
      asked.length = 0;
    }
  });

  it('keeps routers and their biases in float32, all else in the dtype asked for', async () => {
    await saveModel(scratch('model'), {architecture: mixture, read: values, dtype: 'BF16'});
    const folder = await openModelFolder(scratch('model'));
    const {tensors, config} = folder;
    const precise = tensors.names.filter((name) => tensors.info(name).dtype === 'F32');
    expect(precise.sort()).toEqual([
      'model.layers.0.mlp.gate.e_score_correction_bias',
      'model.layers.0.mlp.gate.weight',
    ]);
    expect(new Set(tensors.names.map((name) => tensors.info(name).dtype))).toEqual(new Set(['F32', 'BF16']));
    expect(config.torch_dtype).toBe('bfloat16');
    await folder.close();
  });

  it('keeps the gate of a shared expert in float32, as a router', async () => {
    const architecture = {...mixture, ffn: [{...EXPERTS, sharedGate: true}]} as const;
    await saveModel(scratch('model'), {architecture, read: values, dtype: 'BF16'});
    const folder = await openModelFolder(scratch('model'));
    const gate = folder.tensors.info('model.layers.0.mlp.shared_expert_gate.weight');
    expect(gate).toMatchObject({dtype: 'F32', shape: [1, 16]});
    await folder.close();
  });

  it('takes the tokenizer along byte for byte, and further files', async () => {
    const tokenizerFrom = await writeTokenizer(scratch('tokenizer'));
    const extraFiles = {'downcycle.json': '{}\n'};
    const path = scratch('model');
    await saveModel(path, {architecture: mixture, read: values, dtype: 'F32', tokenizerFrom, extraFiles});
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      expect(await readFile(join(path, name))).toEqual(await readFile(join(tokenizerFrom, name)));
    }
    expect(await readFile(join(path, 'downcycle.json'), 'utf8')).toBe('{}\n');
  });

  it('leaves nothing behind when a parameter has the wrong size', async () => {
    const path = join(scratch('models'), 'model');
    await mkdir(dirname(path));
    const read = async (): Promise<Float32Array> => new Float32Array(3);
    const saved = saveModel(path, {architecture: mixture, read, dtype: 'F32'});
    await expect(saved).rejects.toThrow(ModelError);
    await expect(saved).rejects.toThrow('embed needs 512 numbers, it was given 3');
    expect(existsSync(path)).toBe(false);
  });

  it('never overwrites', async () => {
    await mkdir(scratch('taken'));
    const saved = saveModel(scratch('taken'), {architecture: mixture, read: values, dtype: 'F32'});
    await expect(saved).rejects.toThrow(EnvironmentError);
  });
});
