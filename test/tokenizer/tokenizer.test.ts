import {createHash} from 'node:crypto';
import {existsSync, readFileSync} from 'node:fs';
import {cp, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {createStreamDecoder} from '../../src/tokenizer/stream-decoder.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {DataError, ModelError} from '../../src/util/errors.js';
import {BYTE_LEVEL, STORIES, tempFolder} from '../data/support.js';

interface Golden {
  readonly text: string;
  readonly ids: number[];
  readonly decoded?: string;
  readonly ids_special_as_text?: number[];
}

const SMOLLM2 = process.env.DOWNCYCLE_SMOLLM2 ?? '';
const SMOLLM2_GOLDEN = '../shared/goldens/smollm2/golden.json';

function goldens(path: string): [string, Golden][] {
  const json = JSON.parse(readFileSync(path, 'utf8')) as Record<string, Golden> & {tokens?: Record<string, Golden>};
  return Object.entries(json.tokens ?? json);
}

/** A copy of a tokenizer folder with one of its files changed. */
async function altered(folder: string, file: string, change: (json: Record<string, unknown>) => void): Promise<string> {
  const copy = join(await tempFolder(), 'tokenizer');
  await cp(folder, copy, {recursive: true});
  const json = JSON.parse(await readFile(join(copy, file), 'utf8')) as Record<string, unknown>;
  change(json);
  await writeFile(join(copy, file), JSON.stringify(json));
  return copy;
}

describe('a SentencePiece tokenizer with byte fallback', () => {
  it.each(goldens(`${STORIES}/golden.json`))('encodes as llama2.c does: %s', async (_, {text, ids}) => {
    expect([...(await loadTokenizer(STORIES)).encode(text)]).toEqual(ids);
  });

  it('decodes what it encoded', async () => {
    const tokenizer = await loadTokenizer(STORIES);
    fc.assert(
      fc.property(fc.string({unit: 'grapheme-composite'}), (text) => {
        const ids = tokenizer.encode(text, {special: 'text'});
        expect(tokenizer.decode(ids, {skipSpecial: true})).toBe(text);
      }),
    );
  });

  it('keeps a byte order mark when decoding', async () => {
    const tokenizer = await loadTokenizer(STORIES);
    expect(tokenizer.decode(tokenizer.encode('a\ufeff\ufeffb'), {skipSpecial: true})).toBe('a\ufeff\ufeffb');
  });
});

describe('a byte-level tokenizer', () => {
  it.each(goldens(`${BYTE_LEVEL}/golden.json`))('encodes and decodes as Rust does: %s', async (_, golden) => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    expect([...tokenizer.encode(golden.text)]).toEqual(golden.ids);
    expect([...tokenizer.encode(golden.text, {special: 'text'})]).toEqual(golden.ids_special_as_text);
    expect(tokenizer.decode(golden.ids)).toBe(golden.decoded);
  });

  it('takes merges written as strings like merges written as pairs', async () => {
    const strings = await altered(BYTE_LEVEL, 'tokenizer.json', (json) => {
      const model = json.model as {merges: string[][]};
      Object.assign(model, {merges: model.merges.map((pair) => pair.join(' '))});
    });
    const [a, b] = [await loadTokenizer(BYTE_LEVEL), await loadTokenizer(strings)];
    for (const [, {text}] of goldens(`${BYTE_LEVEL}/golden.json`)) expect(b.encode(text)).toEqual(a.encode(text));
  });
});

describe.skipIf(!existsSync(SMOLLM2) || !existsSync(SMOLLM2_GOLDEN))(
  'SmolLM2 (needs DOWNCYCLE_SMOLLM2, its folder, and ../shared/goldens)',
  () => {
    const cases = existsSync(SMOLLM2_GOLDEN) ? goldens(SMOLLM2_GOLDEN) : [];
    it.each(cases)('encodes and decodes as Rust does: %s', async (_, golden) => {
      const tokenizer = await loadTokenizer(SMOLLM2);
      expect([...tokenizer.encode(golden.text)]).toEqual(golden.ids);
      expect(tokenizer.decode(golden.ids)).toBe(golden.decoded);
      const plain = golden.ids_special_as_text ?? golden.ids;
      expect([...tokenizer.encode(golden.text, {special: 'text'})]).toEqual(plain);
    });
  },
);

describe('a text that comes back', () => {
  it('has the spaces that stood in it, also where the settings ask to clean them up', async () => {
    const folder = await altered(BYTE_LEVEL, 'tokenizer_config.json', (json) => {
      json.clean_up_tokenization_spaces = true;
    });
    const tokenizer = await loadTokenizer(folder);
    const text = "he said , and 's ' not";
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
    const stream = createStreamDecoder(tokenizer);
    const pieces = Array.from(tokenizer.encode(text), (id) => stream.push(id));
    expect([...pieces, stream.flush()].join('')).toBe(text);
  });
});

describe('what is put around a text', () => {
  it('is the begin token where the settings ask for it, and nothing without addSpecial', async () => {
    const tokenizer = await loadTokenizer(STORIES);
    const plain = [...tokenizer.encode('Once', {addSpecial: false})];
    expect([...tokenizer.encode('Once')]).toEqual([tokenizer.bosId, ...plain]);
    expect(tokenizer.addsBos).toBe(true);
  });

  it('is nothing where the settings have a begin token but do not add it', async () => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    expect(tokenizer.encode('it')).toEqual(tokenizer.encode('it', {addSpecial: false}));
    expect([tokenizer.addsBos, tokenizer.bosId, tokenizer.eosId]).toEqual([false, 1, 2]);
  });

  it("is what the post-processor's template says", async () => {
    const folder = await altered(BYTE_LEVEL, 'tokenizer.json', (json) => {
      const special = (id: string): object => ({SpecialToken: {id, type_id: 0}});
      const single = [special('<|im_start|>'), {Sequence: {id: 'A', type_id: 0}}, special('<|im_end|>')];
      json.post_processor = {type: 'TemplateProcessing', single, pair: single, special_tokens: {}};
    });
    const tokenizer = await loadTokenizer(folder);
    const plain = [...tokenizer.encode('it', {addSpecial: false})];
    expect([...tokenizer.encode('it')]).toEqual([1, ...plain, 2]);
    expect([...tokenizer.encode('<|im_end|>', {special: 'text'})].at(-2)).not.toBe(2);
    expect(tokenizer.addsBos).toBe(true);
  });

  it('is added once when template and settings both ask for it', async () => {
    const folder = await altered(STORIES, 'tokenizer.json', (json) => {
      const single = [{SpecialToken: {id: '<s>', type_id: 0}}, {Sequence: {id: 'A', type_id: 0}}];
      json.post_processor = {type: 'TemplateProcessing', single, pair: single, special_tokens: {}};
    });
    const [a, b] = [await loadTokenizer(STORIES), await loadTokenizer(folder)];
    expect(b.encode('Once')).toEqual(a.encode('Once'));
  });
});

describe('loadTokenizer', () => {
  it('takes the SHA-256 of tokenizer.json as fingerprint', async () => {
    const bytes = readFileSync(`${STORIES}/tokenizer.json`);
    expect((await loadTokenizer(STORIES)).fingerprint).toBe(createHash('sha256').update(bytes).digest('hex'));
  });

  it('knows the size of the vocabulary with its added tokens', async () => {
    expect((await loadTokenizer(STORIES)).vocabSize).toBe(512);
    expect((await loadTokenizer(BYTE_LEVEL)).decode([273])).toBe('<tab>');
    expect((await loadTokenizer(BYTE_LEVEL)).vocabSize).toBe(274);
  });

  it('refuses a folder without tokenizer.json', async () => {
    const loading = loadTokenizer(await tempFolder());
    await expect(loading).rejects.toThrow(ModelError);
    await expect(loading).rejects.toThrow(/tokenizer\.json does not exist/);
  });

  it.each([
    ['no JSON', '{"model": ', /tokenizer\.json is no usable tokenizer file/],
    ['no model', '{"added_tokens": []}', /model/],
    ['an unknown model', '{"model": {"type": "Magic", "vocab": {}}}', /model\.type/],
    [
      'a broken pre-tokenizer',
      '{"model": {"type": "BPE", "vocab": {}, "merges": []}, "pre_tokenizer": {"type": "X"}}',
      /X/,
    ],
  ])('refuses a file with %s', async (_, text, message) => {
    const folder = await tempFolder();
    await writeFile(join(folder, 'tokenizer.json'), text);
    const loading = loadTokenizer(folder);
    await expect(loading).rejects.toThrow(ModelError);
    await expect(loading).rejects.toThrow(message);
  });

  it('refuses broken settings', async () => {
    const folder = await altered(STORIES, 'tokenizer_config.json', (json) => Object.assign(json, {eos_token: 7}));
    await expect(loadTokenizer(folder)).rejects.toThrow(
      /tokenizer_config\.json is no usable tokenizer file: eos_token/,
    );
  });

  it('does without tokenizer_config.json, and then knows no begin and end', async () => {
    const folder = await tempFolder();
    await cp(`${STORIES}/tokenizer.json`, join(folder, 'tokenizer.json'));
    const tokenizer = await loadTokenizer(folder);
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.addsBos]).toEqual([null, null, false]);
  });
});

describe('decode', () => {
  it('gives no text for no ids', async () => {
    expect((await loadTokenizer(STORIES)).decode([])).toBe('');
  });

  it.each([-1, 512, 1.5])('refuses the id %s', async (id) => {
    const tokenizer = await loadTokenizer(STORIES);
    expect(() => tokenizer.decode([id])).toThrow(DataError);
    expect(() => tokenizer.decode([id])).toThrow(`Token id ${id} is not in the vocabulary of 512.`);
  });
});
