import {mkdir, readdir} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {dataSchema} from '../../src/data/options.js';
import {convert} from '../../src/downcycle/convert.js';
import {profileModel} from '../../src/downcycle/profile-model.js';
import {profileSchema} from '../../src/downcycle/profile-options.js';
import {upcycle} from '../../src/downcycle/upcycle.js';
import {upcycleSchema} from '../../src/downcycle/upcycle-options.js';
import {startEngine} from '../../src/engine/start.js';
import type {FloatDtype} from '../../src/format/dtype.js';
import {openModelFolder, writeModelFolder} from '../../src/format/model-folder.js';
import {ConfigError, ModelError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA, tinyConfig} from '../model/tiny-llama.js';
import {DENSE, TEXT, writeModel} from '../train/support.js';
import {splitOptions} from './split-options.js';

const scratch = useScratch();
const method = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2});

interface Damage {
  readonly name: string;
  readonly at: number;
  readonly value: number;
  readonly dtype?: FloatDtype;
  readonly maxShardBytes?: number;
}

/** The tiny llama with one number replaced. */
async function damaged({name, at, value, dtype = 'F32', maxShardBytes = 2e9}: Damage): Promise<string> {
  const folder = await openModelFolder(TINY_LLAMA);
  const {tensors} = folder;
  await writeModelFolder(scratch('dense'), {
    config: tinyConfig,
    entries: tensors.names.map((one) => ({name: one, dtype, shape: tensors.info(one).shape})),
    read: async (one) => {
      const values = await tensors.read(one);
      if (one === name) values[at] = value;
      return values;
    },
    maxShardBytes,
  });
  await folder.close();
  return scratch('dense');
}

describe('a weight that is not finite', () => {
  it.each<[Damage, string]>([
    [{name: 'model.layers.1.mlp.up_proj.weight', at: 35, value: Number.NaN}, 'has NaN in row 2.'],
    [{name: 'model.layers.0.mlp.down_proj.weight', at: 47, value: Number.NEGATIVE_INFINITY}, 'has -Infinity in row 1.'],
    [
      {name: 'model.embed_tokens.weight', at: 0, value: Number.POSITIVE_INFINITY, dtype: 'BF16'},
      'has Infinity in row 0.',
    ],
    [{name: 'model.norm.weight', at: 3, value: Number.NaN, dtype: 'F64'}, 'has NaN at place 3.'],
  ])('is refused by file, tensor and place before anything is written: %o', async (damage, message) => {
    const model = await damaged(damage);
    await mkdir(scratch('outputs'));
    const refused = convert({model, out: scratch('outputs/moe'), method, seed: 1});
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(`${model}/model.safetensors: tensor "${damage.name}" ${message}`);
    const copies = upcycleSchema.parse({method: 'sparse-upcycle', experts: 2, topK: 1});
    await expect(upcycle({model, out: scratch('outputs/up'), method: copies, seed: 1})).rejects.toThrow(message);
    expect(await readdir(scratch('outputs'))).toEqual([]);
  });

  it('is found in the file that holds it', async () => {
    const name = 'model.layers.1.mlp.up_proj.weight';
    const model = await damaged({name, at: 0, value: Number.NaN, maxShardBytes: 4000});
    await expect(convert({model, out: scratch('moe'), method, seed: 1})).rejects.toThrow(
      /dense\/model-\d{5}-of-\d{5}\.safetensors: tensor "model\.layers\.1\.mlp\.up_proj\.weight" has NaN in row 0/,
    );
  });
});

describe('profiling refuses', () => {
  const profile = (model: string, settings: object = {}) =>
    profileModel({
      ...{model, shards: scratch('shards'), partial: scratch('partial'), where: 'x.yaml:3:1'},
      data: dataSchema.parse({sequenceLength: 32, sources: [{name: 's', path: TEXT}], validation: {share: 0}}),
      profile: profileSchema.parse({tokensPerSample: 16, samplesPerTask: 2, ...settings}),
    });

  it('a weight that is not finite, before it computes', async () => {
    await startEngine();
    await writeModel(scratch('model'), DENSE, ({path}, values) =>
      path.includes('1.ffn.up') ? values.fill(Number.NaN) : values,
    );
    await expect(profile(scratch('model'))).rejects.toThrow(
      `${scratch('model')}/model.safetensors: tensor "model.layers.1.mlp.up_proj.weight" has NaN in row 0.`,
    );
  });

  it('a model that was converted already, before it packs text', async () => {
    await writeModel(scratch('model'), DENSE);
    const eight = splitOptions({method: 'contiguous', experts: 8, topK: 2});
    await convert({model: scratch('model'), out: scratch('moe'), method: eight, seed: 1});
    const refused = profile(scratch('moe'));
    await expect(refused).rejects.toThrow(ModelError);
    await expect(refused).rejects.toThrow(
      `${scratch('moe')}: this is a mixture of experts already, cut out of ${scratch('model')} by contiguous;`,
    );
    expect(await readdir(scratch())).not.toContain('shards');
  });

  it('gradients of samples that foretell nothing', async () => {
    await writeModel(scratch('model'), DENSE);
    const refused = profile(scratch('model'), {tokensPerSample: 1, gradients: true});
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(
      'x.yaml:3:1: profile.tokensPerSample (1) leaves no token to predict, which gradients ask for.',
    );
  });

  it('more samples than a source has rows', async () => {
    await writeModel(scratch('model'), DENSE);
    await expect(profile(scratch('model'), {samplesPerTask: 100_000})).rejects.toThrow(
      /^Source s has \d+ rows, profile\.samplesPerTask asks for 100000\.$/,
    );
  });
});
