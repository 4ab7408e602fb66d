// GGUF files written out of Hugging Face folders are the same models.
import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {convert} from '../../../src/downcycle/convert.js';
import {readProvenance} from '../../../src/downcycle/provenance.js';
import {inspect} from '../../../src/experiment/inspect.js';
import {openModelFolder} from '../../../src/format/model-folder.js';
import {resolveModel} from '../../../src/hub/resolve.js';
import {architectureFromConfig} from '../../../src/model/config.js';
import {loadModel} from '../../../src/model/model.js';
import {readArchitecture} from '../../../src/model/read-architecture.js';
import {fingerprintOf} from '../../../src/train/inputs.js';
import {splitOptions} from '../../downcycle/split-options.js';
import {TINY_LLAMA, tinyGolden, writeTinyLlama} from '../../model/tiny-llama.js';
import {onEngine} from '../../support/engines.js';
import {bool, f32, type GgufContent, type GgufValue, text, u32, writeGguf} from '../../support/gguf.js';
import {logitsOf} from '../../support/logits.js';
import {useScratch} from '../scratch.js';

const scratch = useScratch();
const fixture = (family: string): string => fileURLToPath(new URL(`../../fixtures/family/${family}`, import.meta.url));
const withKeys =
  (keys: Readonly<Record<string, GgufValue | null>>) =>
  ({metadata, ...rest}: GgufContent): GgufContent => {
    const all = Object.entries({...metadata, ...keys}).filter(([, value]) => value !== null);
    return {...rest, metadata: Object.fromEntries(all) as GgufContent['metadata']};
  };
const without =
  (name: string) =>
  ({tensors, ...rest}: GgufContent): GgufContent => ({
    ...rest,
    tensors: tensors.filter((tensor) => tensor.name !== name),
  });

describe.each(['llama', 'qwen2', 'qwen3', 'olmo2', 'granite'])('a GGUF file of %s', (family) => {
  it('has the architecture, the tensors and the fingerprint of the folder that it was made of', async () => {
    const path = await writeGguf(scratch('model.gguf'), fixture(family));
    const [file, folder] = [await openModelFolder(path), await openModelFolder(fixture(family))];
    expect(architectureFromConfig(file.config, path)).toEqual(architectureFromConfig(folder.config, ''));
    expect(await readArchitecture(path)).toEqual(await readArchitecture(fixture(family)));
    expect(file.tensors.names.toSorted()).toEqual(folder.tensors.names.toSorted());
    for (const name of folder.tensors.names) {
      expect(await file.tensors.readBytes(name), name).toEqual(await folder.tensors.readBytes(name));
    }
    expect(await fingerprintOf(path)).toBe(await fingerprintOf(fixture(family)));
    await Promise.all([file.close(), folder.close()]);
  });
});

describe('a GGUF file as a model', () => {
  onEngine('wasm', 'has the logits of the folder that it was made of, exactly', async () => {
    const path = await writeGguf(scratch('tiny.gguf'), TINY_LLAMA);
    const [file, folder] = [await loadModel(path), await loadModel(TINY_LLAMA)];
    const sequences = [tinyGolden.ids];
    const logits = await logitsOf(file, sequences);
    expect(logits.some((value) => value !== 0)).toBe(true);
    expect(logits).toEqual(await logitsOf(folder, sequences));
    file.dispose();
    folder.dispose();
  });

  it.each(['F16', 'BF16'] as const)('has the bits of %s', async (dtype) => {
    const model = await writeTinyLlama(scratch('short'), {dtype});
    const path = await writeGguf(scratch('short.gguf'), model, undefined, dtype);
    const [file, folder] = [await openModelFolder(path), await openModelFolder(model)];
    for (const name of ['model.layers.1.self_attn.q_proj.weight', 'model.layers.0.mlp.down_proj.weight']) {
      expect(file.tensors.info(name).dtype).toBe(dtype);
      expect(await file.tensors.readBytes(name)).toEqual(await folder.tensors.readBytes(name));
    }
    expect(file.config.torch_dtype).toBe({F16: 'float16', BF16: 'bfloat16'}[dtype]);
    await Promise.all([file.close(), folder.close()]);
  });

  it('is converted to the tensors that the folder is converted to, and recorded', async () => {
    const path = await writeGguf(scratch('tiny.gguf'), TINY_LLAMA);
    const method = splitOptions({method: 'contiguous', experts: 5, shared: 1, topK: 2});
    for (const [model, out] of [
      [path, 'of-file'],
      [TINY_LLAMA, 'of-folder'],
    ] as const) {
      await convert({model, out: scratch(out), method, seed: 7});
    }
    expect(await readFile(scratch('of-file/model.safetensors'))).toEqual(
      await readFile(scratch('of-folder/model.safetensors')),
    );
    const provenance = await readProvenance(scratch('of-file'));
    expect(provenance).toMatchObject({source: {path, gguf: {F32: 21}}});
    expect(await readProvenance(scratch('of-folder'))).not.toHaveProperty('source.gguf');
  });

  it('is inspected, resolved, and told where it is missing', async () => {
    const path = await writeGguf(scratch('tiny.gguf'), TINY_LLAMA);
    expect(await inspect(path)).toMatchObject({kind: 'model', dtypes: {F32: 21}, tokenizer: null, warnings: []});
    expect(await resolveModel(path)).toEqual({path, revision: null});
    await expect(resolveModel('no/such.gguf')).rejects.toThrow('no/such.gguf: there is no such file.');
    await mkdir(scratch('folder'));
    await writeFile(scratch('folder/a.gguf'), '');
    await expect(openModelFolder(scratch('folder'))).rejects.toMatchObject({
      hint: `Give the file: ${scratch('folder/a.gguf')}.`,
    });
  });

  it('ties its head to the embedding where it has no output of its own', async () => {
    const path = await writeGguf(scratch('tied.gguf'), TINY_LLAMA, without('output.weight'));
    expect((await readArchitecture(path)).tied).toBe(true);
    expect((await readArchitecture(TINY_LLAMA)).tied).toBe(false);
  });

  it.each<[string, Record<string, GgufValue | null>, RegExp]>([
    [
      'another architecture',
      {'general.architecture': text('qwen2moe')},
      /general.architecture is "qwen2moe"; known are llama, qwen2, .*; nearest is qwen2/,
    ],
    ['none', {'general.architecture': null}, /there is no general.architecture/],
    ['a part', {'split.count': u32(3), 'split.no': u32(1)}, /this is part 2 of 3 of a model/],
    ['an adapter', {'general.type': text('adapter')}, /general.type is "adapter"; a model is needed/],
    ['experts', {'llama.expert_count': u32(8)}, /llama.expert_count is 8; what it changes is not computed here/],
    ['a window', {'llama.attention.sliding_window': u32(64)}, /llama.attention.sliding_window is 64/],
    ['no width', {'llama.embedding_length': null}, /llama.embedding_length is missing; a number is needed/],
    [
      'layers that differ',
      {'llama.feed_forward_length': {type: 'i32s', value: [24, 20]}},
      /is a list; .* layers that differ are not read/,
    ],
    ['a text for a number', {'llama.block_count': text('2')}, /llama.block_count is "2"; a number is needed/],
    [
      'a part of a head turned',
      {'llama.rope.dimension_count': u32(2)},
      /llama.rope.dimension_count is 2, and a head has 4/,
    ],
    [
      'odd heads',
      {'llama.attention.key_length': u32(3), 'llama.attention.value_length': u32(3)},
      /heads of 3 numbers cannot be/,
    ],
    [
      'positions scaled otherwise',
      {'llama.rope.scaling.type': text('longrope')},
      /rope_type is "longrope": only "default", "linear"/,
    ],
    [
      'scaled attention',
      {'llama.rope.scaling.type': text('yarn'), 'llama.rope.scaling.attn_factor': f32(2)},
      /attn_factor is 2; only 1 is supported/,
    ],
    ['a number for a kind', {'llama.rope.scaling.type': u32(1)}, /rope.scaling.type is 1; a text is needed/],
  ])('is refused if it says %s', async (_, keys, message) => {
    const path = await writeGguf(scratch('odd.gguf'), TINY_LLAMA, withKeys(keys));
    await expect(readArchitecture(path)).rejects.toThrow(message);
  });

  it('takes what there is none of for nothing', async () => {
    const none = {
      'llama.expert_count': u32(0),
      'llama.rope.scaling.finetuned': bool(false),
      'llama.vocab_size': u32(32),
    };
    const path = await writeGguf(scratch('none.gguf'), TINY_LLAMA, withKeys(none));
    expect(await readArchitecture(path)).toEqual(await readArchitecture(TINY_LLAMA));
  });

  it.each(['blk.1.ffn_up.weight', 'output_norm.weight', 'token_embd.weight'])('is refused without %s', async (name) => {
    const path = await writeGguf(scratch('less.gguf'), TINY_LLAMA, without(name));
    await expect(openModelFolder(path)).rejects.toThrow(`${path}: tensor "${name}" is missing.`);
  });

  const withTensor =
    (name: string, size: number) =>
    ({tensors, ...rest}: GgufContent): GgufContent => ({
      ...rest,
      tensors: [...tensors, {name, shape: [size], code: 0, bytes: new Uint8Array(size * 4)}],
    });

  it.each([
    ['blk.0.attn_q.bias', 'tensor "blk.0.attn_k.bias" is missing'],
    ['blk.0.attn_output.bias', 'tensor "blk.0.attn_q.bias" is missing'],
    ['blk.1.ffn_up.bias', 'tensor "blk.1.ffn_up.bias" is none of a llama model of 2 layers here'],
    ['blk.0.attn_sinks.weight', 'tensor "blk.0.attn_sinks.weight" is none'],
    ['output_norm.bias', 'tensor "output_norm.bias" is none'],
    ['blk.2.attn_norm.weight', 'tensor "blk.2.attn_norm.weight" is none'],
  ])('is refused with %s, which would change what it computes', async (name, message) => {
    const path = await writeGguf(scratch('more.gguf'), TINY_LLAMA, withTensor(name, 16));
    await expect(openModelFolder(path)).rejects.toThrow(`${path}: ${message}`);
  });

  it('leaves out a table of positions that old files have', async () => {
    const path = await writeGguf(scratch('old.gguf'), TINY_LLAMA, withTensor('blk.0.attn_rot_embd.weight', 16));
    await (await openModelFolder(path)).close();
  });

  it('is refused if positions are scaled in two ways', async () => {
    const keys = {'llama.rope.scaling.type': text('linear'), 'llama.rope.scaling.factor': f32(8)};
    const path = await writeGguf(scratch('twice.gguf'), fixture('llama'), withKeys(keys));
    await expect(openModelFolder(path)).rejects.toThrow(
      'llama.rope.scaling.type is "linear", and tensor "rope_freqs.weight" is there, too.',
    );
  });

  it('ends a text at the end of a turn, too', async () => {
    const ends = {'tokenizer.ggml.eos_token_id': u32(3), 'tokenizer.ggml.eot_token_id': u32(5)};
    const more = {...ends, 'tokenizer.ggml.eom_token_id': u32(3)};
    const folder = await openModelFolder(await writeGguf(scratch('ends.gguf'), TINY_LLAMA, withKeys(more)));
    expect(folder.config.eos_token_id).toEqual([3, 5]);
    await folder.close();
    const one = await openModelFolder(
      await writeGguf(scratch('end.gguf'), TINY_LLAMA, withKeys({'tokenizer.ggml.eos_token_id': u32(3)})),
    );
    expect(one.config.eos_token_id).toBe(3);
    await one.close();
  });

  it('is refused if its factors of positions are none of Llama 3', async () => {
    const path = await writeGguf(scratch('rope.gguf'), fixture('llama'), ({tensors, ...rest}) => ({
      ...rest,
      tensors: tensors.map((tensor) =>
        tensor.name === 'rope_freqs.weight' ? {...tensor, bytes: Buffer.from(Float32Array.of(1, 2, 3).buffer)} : tensor,
      ),
    }));
    await expect(openModelFolder(path)).rejects.toThrow('tensor "rope_freqs.weight" turns positions otherwise');
  });
});
