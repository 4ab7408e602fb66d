// Tokenizers made of what GGUF files hold are those of the folders that the files were made of.
import {copyFile, mkdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {describe, expect, it} from 'vitest';
import {writeModelFolder} from '../../src/format/model-folder.js';
import {openTokenizerFiles} from '../../src/format/tokenizer-files.js';
import {loadTokenizer, tokenizerFingerprint} from '../../src/tokenizer/tokenizer.js';
import {useScratch} from '../format/scratch.js';
import {bool, type GgufValue, renderGguf, text, texts, u32} from '../support/gguf.js';

const scratch = useScratch();
const BYTE_LEVEL = fileURLToPath(new URL('../fixtures/tokenizer/byte-level', import.meta.url));
const STORIES = fileURLToPath(new URL('../fixtures/tokenizer/stories260k', import.meta.url));
const TEXT = 'Hello, hello 1234!\n\tit’s <|im_start|>user é\u0085 日本 <tab> 👍<|im_end|>';

interface Definition {
  readonly added_tokens: readonly {readonly id: number; readonly content: string; readonly special: boolean}[];
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (string | readonly string[])[];
  };
}

/** What llama.cpp writes of a tokenizer.json. */
async function keysOf(folder: string, more: Readonly<Record<string, GgufValue | null>> = {}) {
  const {added_tokens, model} = JSON.parse(await readFile(join(folder, 'tokenizer.json'), 'utf8')) as Definition;
  const tokens: string[] = [];
  for (const [token, id] of Object.entries(model.vocab)) tokens[id] = token;
  for (const {id, content} of added_tokens) tokens[id] = content;
  const types = tokens.map(() => 1);
  for (const {id, special} of added_tokens) types[id] = special ? 3 : 4;
  const keys: Record<string, GgufValue | null> = {
    'tokenizer.ggml.model': text('gpt2'),
    'tokenizer.ggml.pre': text('smollm'),
    'tokenizer.ggml.tokens': texts([...tokens, '[PAD274]']),
    'tokenizer.ggml.token_type': {type: 'i32s', value: [...types, 5]},
    'tokenizer.ggml.merges': texts(model.merges.map((pair) => (typeof pair === 'string' ? pair : pair.join(' ')))),
    'tokenizer.ggml.bos_token_id': u32(1),
    'tokenizer.ggml.eos_token_id': u32(2),
    'tokenizer.ggml.add_bos_token': bool(false),
    'tokenizer.chat_template': text('{{ messages[0].content }}'),
    ...more,
  };
  return Object.fromEntries(Object.entries(keys).filter((entry): entry is [string, GgufValue] => entry[1] !== null));
}

/** A file with the vocabulary of a folder, and no tensors. */
async function write(folder: string, more: Readonly<Record<string, GgufValue | null>> = {}): Promise<string> {
  await mkdir(scratch('models'), {recursive: true});
  const path = scratch('models/model.gguf');
  await writeFile(path, renderGguf({metadata: await keysOf(folder, more), tensors: []}));
  return path;
}

describe('the tokenizer of a GGUF file', () => {
  it('has the ids and the texts of the folder that it was made of', async () => {
    const [made, own] = [await loadTokenizer(await write(BYTE_LEVEL)), await loadTokenizer(BYTE_LEVEL)];
    const ids = own.encode(TEXT);
    expect(made.encode(TEXT)).toEqual(ids);
    expect(made.encode(TEXT, {special: 'text'})).toEqual(own.encode(TEXT, {special: 'text'}));
    expect(made.decode(ids)).toBe(own.decode(ids));
    expect([made.vocabSize, made.bosId, made.eosId, made.addsBos]).toEqual([own.vocabSize, 1, 2, false]);
    expect(made.chat?.source).toBe('{{ messages[0].content }}');
  });

  it('is written beside a model that is made of the file', async () => {
    const path = await write(BYTE_LEVEL);
    await writeModelFolder(scratch('made'), {
      config: {},
      entries: [{name: 'a', dtype: 'F32', shape: [1]}],
      read: () => Promise.resolve(new Float32Array(1)),
      copyFrom: path,
    });
    expect(await tokenizerFingerprint(scratch('made'))).toBe(await tokenizerFingerprint(path));
    const [made, own] = [await loadTokenizer(scratch('made')), await loadTokenizer(path)];
    expect(made.encode(TEXT)).toEqual(own.encode(TEXT));
    expect(made.chat?.source).toBe(own.chat?.source);
  });

  it('begins a text where the file says so, and Llama 3 where it says nothing', async () => {
    const says = await loadTokenizer(await write(BYTE_LEVEL, {'tokenizer.ggml.add_bos_token': bool(true)}));
    expect(says.addsBos).toBe(true);
    expect([...says.encode('a')].slice(0, 1)).toEqual([1]);
    const llama = {'tokenizer.ggml.pre': text('llama-bpe'), 'tokenizer.ggml.add_bos_token': null};
    expect((await loadTokenizer(await write(BYTE_LEVEL, llama))).addsBos).toBe(true);
    const files = await openTokenizerFiles(await write(BYTE_LEVEL, llama));
    const definition = JSON.parse(String(await files.read('tokenizer.json'))) as {
      model: object;
      post_processor: object;
    };
    expect(definition.model).toMatchObject({type: 'BPE', ignore_merges: true});
    expect(definition.post_processor).toMatchObject({type: 'TemplateProcessing'});
  });

  it('of Qwen composes letters and takes digits one by one', async () => {
    const qwen = await loadTokenizer(await write(BYTE_LEVEL, {'tokenizer.ggml.pre': text('qwen2')}));
    expect(qwen.encode('e\u0301 12')).toEqual(qwen.encode('é 12'));
    const plain = await loadTokenizer(await write(BYTE_LEVEL));
    expect(plain.encode('e\u0301')).not.toEqual(plain.encode('é'));
  });

  it('is that beside it where the file does not hold all, if the tokens are the same', async () => {
    const keys = {'tokenizer.ggml.model': text('llama')};
    const path = await write(STORIES, keys);
    await expect(loadTokenizer(path)).rejects.toMatchObject({
      message: `${path}: no tokenizer can be made of this file: its vocabulary is of kind "llama", and only of gpt2 it says all.`,
      hint: "Put the model's own tokenizer.json and tokenizer_config.json beside it.",
    });
    await copyFile(join(STORIES, 'tokenizer.json'), scratch('models/tokenizer.json'));
    expect(await tokenizerFingerprint(path)).toBe(await tokenizerFingerprint(STORIES));
    expect((await openTokenizerFiles(path)).names).toEqual(['tokenizer.json']);
    await copyFile(join(BYTE_LEVEL, 'tokenizer.json'), scratch('models/tokenizer.json'));
    await expect(loadTokenizer(path)).rejects.toThrow('tokenizer.json is of another model: its id ');
  });

  it.each<[string, Record<string, GgufValue | null>, RegExp]>([
    [
      'of an unknown kind',
      {'tokenizer.ggml.pre': text('dbrx')},
      /tokenizer.ggml.pre is "dbrx", known are gpt-2, smollm/,
    ],
    ['of no kind', {'tokenizer.ggml.pre': null}, /tokenizer.ggml.pre is missing, known are/],
    ['without a vocabulary', {'tokenizer.ggml.model': null}, /it holds no vocabulary/],
    ['without merges', {'tokenizer.ggml.merges': null}, /tokenizer.ggml.merges is missing/],
    ['with a merge of one', {'tokenizer.ggml.merges': texts(['ab'])}, /merges has "ab", which is no pair/],
    [
      'with too few types',
      {'tokenizer.ggml.token_type': {type: 'i32s', value: [1]}},
      /token_type has 1 entries for 275 tokens/,
    ],
    [
      'with a token twice',
      {'tokenizer.ggml.tokens': texts(['a', 'a']), 'tokenizer.ggml.token_type': {type: 'i32s', value: [1, 1]}},
      /token "a" stands twice/,
    ],
    ['with numbers for tokens', {'tokenizer.ggml.tokens': {type: 'i32s', value: [1]}}, /is not a list of texts/],
    ['with a number for tokens', {'tokenizer.ggml.tokens': u32(1)}, /tokenizer.ggml.tokens is no list/],
  ])('is refused %s', async (_, keys, message) => {
    await expect(loadTokenizer(await write(BYTE_LEVEL, keys))).rejects.toThrow(message);
  });
});
