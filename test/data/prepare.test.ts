import {cpSync, existsSync} from 'node:fs';
import {cp, readdir, readFile, rm, stat, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it, onTestFinished} from 'vitest';
import {type DataOptions, dataSchema} from '../../src/data/options.js';
import {documentIds} from '../../src/data/pack.js';
import {isValidation, type PrepareProgress, prepare} from '../../src/data/prepare.js';
import {closeShards, ensureShards, type SourceShards} from '../../src/data/shards.js';
import {openTokenShard} from '../../src/format/token-shard.js';
import {createChatTemplate} from '../../src/tokenizer/chat-template.js';
import {loadTokenizer, type Tokenizer} from '../../src/tokenizer/tokenizer.js';
import {DataError, EnvironmentError} from '../../src/util/errors.js';
import {BYTE_LEVEL, STORIES, tempFolder} from './support.js';

const STORY = Array.from(
  {length: 60},
  (_, i) => `Story ${i}. Once upon a time there was a dog named Max number ${i * i}.`,
);

/** A folder with one text of sixty documents, and the data section that reads it. */
async function library(documents = STORY, section: object = {}): Promise<{folder: string; data: DataOptions}> {
  const folder = await tempFolder();
  await writeFile(join(folder, 'a.jsonl'), documents.map((text) => JSON.stringify({text})).join('\n'));
  const sources = [{name: 'a', path: join(folder, 'a.jsonl'), licence: 'CC0-1.0'}];
  return {folder, data: dataSchema.parse({sequenceLength: 16, sources, validation: {share: 0.2}, ...section})};
}

async function tokensOf(path: string): Promise<number[]> {
  const shard = await openTokenShard(path);
  const {tokens} = await shard.readRows(0, shard.rows);
  await shard.close();
  return [...tokens];
}

describe('prepare', () => {
  it('puts every document into one of the two shards, by the hash of its text', async () => {
    const {folder, data} = await library();
    const tokenizer = await loadTokenizer(STORIES);
    await prepare({data, tokenizer, out: join(folder, 'out')});
    for (const part of ['train', 'valid'] as const) {
      const chosen = STORY.filter((text) => isValidation(text, 0.2) === (part === 'valid'));
      const stream = chosen.flatMap((text) => [...documentIds(tokenizer, text)]);
      const tokens = await tokensOf(join(folder, 'out', `a.${part}.arrow`));
      const rows = Array.from({length: tokens.length / 17}, (_, i) => stream.slice(16 * i, 16 * i + 17));
      expect(tokens).toEqual(rows.flat());
      expect(stream.length - 16 * rows.length).toBeLessThanOrEqual(16);
    }
  });

  it('chooses the same documents for validation in any order', async () => {
    const count = async (documents: string[]): Promise<number | undefined> => {
      const {folder, data} = await library(documents);
      const result = await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
      return result.sources[0]?.valid?.documents;
    };
    expect(await count(STORY.toReversed())).toBe(await count(STORY));
    expect(await count(STORY)).toBe(STORY.filter((text) => isValidation(text, 0.2)).length);
  });

  it('keeps about the share that is asked for, and a document of a smaller share in a larger one', () => {
    const texts = Array.from({length: 5000}, (_, i) => `document ${i}`);
    const kept = texts.filter((text) => isValidation(text, 0.1));
    expect(kept.length).toBeGreaterThan(430);
    expect(kept.length).toBeLessThan(570);
    expect(kept.every((text) => isValidation(text, 0.3))).toBe(true);
  });

  it('counts documents, rows and tokens, of which none is lost', async () => {
    const {folder, data} = await library();
    const tokenizer = await loadTokenizer(STORIES);
    const result = await prepare({data, tokenizer, out: join(folder, 'out')});
    const tokens = STORY.reduce((sum, text) => sum + documentIds(tokenizer, text).length, 0);
    expect(result).toMatchObject({documents: 60, tokens});
    for (const {train, valid} of result.sources) {
      for (const part of [train, valid]) expect(1 + 16 * (part?.rows ?? 0) + (part?.leftOver ?? 0)).toBe(part?.tokens);
    }
    expect(JSON.parse(await readFile(join(folder, 'out', 'prepare.json'), 'utf8'))).toEqual(result);
  });

  it('records tokenizer, length, source, licence and documents in the shard', async () => {
    const {folder, data} = await library();
    const tokenizer = await loadTokenizer(STORIES);
    const result = await prepare({data, tokenizer, out: join(folder, 'out')});
    const shard = await openTokenShard(join(folder, 'out', 'a.train.arrow'));
    await shard.close();
    expect(shard.metadata).toMatchObject({
      tokenizerSha256: tokenizer.fingerprint,
      sequenceLength: 16,
      source: 'a',
      licence: 'CC0-1.0',
      documents: result.sources[0]?.train.documents,
    });
  });

  it('keeps segments if boundaries are kept', async () => {
    const {folder, data} = await library(STORY, {boundaries: 'keep'});
    await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    const shard = await openTokenShard(join(folder, 'out', 'a.train.arrow'));
    const {tokens, segments = new Int32Array()} = await shard.readRows(0, shard.rows);
    await shard.close();
    const begins = [...tokens].flatMap((id, i) => (id === 1 && i % 17 > 0 ? [i] : []));
    expect(begins.length).toBeGreaterThan(10);
    for (const i of begins) expect((segments[i] ?? 0) - (segments[i - 1] ?? 0)).toBe(1);
  });

  it('makes no validation shard for a share of 0', async () => {
    const {folder, data} = await library(STORY, {validation: {share: 0}});
    const result = await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    expect(result.sources[0]?.valid).toBeNull();
    expect(await readdir(join(folder, 'out'))).toEqual(['a.train.arrow', 'prepare.json']);
  });

  it('reports documents and tokens while it runs', async () => {
    const {folder, data} = await library();
    const seen: PrepareProgress[] = [];
    const result = await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')}, (state) => {
      seen.push(state);
    });
    expect(seen.at(-1)).toEqual({source: 'a', documents: 60, tokens: result.tokens});
  });

  it('refuses a folder that exists and leaves it alone', async () => {
    const {folder, data} = await library();
    const before = await readdir(folder);
    const preparing = prepare({data, tokenizer: await loadTokenizer(STORIES), out: folder});
    await expect(preparing).rejects.toThrow(EnvironmentError);
    expect(await readdir(folder)).toEqual(before);
  });

  it.each([
    ['an empty source', [''], {}, /a\.jsonl holds no text/],
    [
      'too little text',
      ['One.'],
      {},
      /^Source a: nothing is left to train on: 1 document is less than one row of 17 tokens/,
    ],
    [
      'no validation',
      STORY.slice(0, 3),
      {validation: {share: 0.001}},
      /^Source a: a validation share of 0\.001 holds nothing out: 0 documents are less/,
    ],
  ])('refuses %s and leaves nothing', async (_, documents, section, message) => {
    const {folder, data} = await library(documents, section);
    const preparing = prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    await expect(preparing).rejects.toThrow(DataError);
    await expect(preparing).rejects.toThrow(message);
    expect(await readdir(folder)).toEqual(['a.jsonl']);
  });
});

describe('conversations', () => {
  const TALK = Array.from({length: 40}, (_, i) => ({
    messages: [
      {role: 'user', content: `what is ${i % 7}`},
      {role: 'assistant', content: `it is ${(i * i) % 7}, and it was`},
    ],
  }));

  /** A folder with the records, and a model's tokenizer with the ChatML template beside it. */
  async function talk(records: readonly object[], source: object = {}, section: object = {}) {
    const folder = await tempFolder();
    await cp(BYTE_LEVEL, join(folder, 'model'), {recursive: true});
    await cp('test/fixtures/tokenizer/chat/chatml.jinja', join(folder, 'model', 'chat_template.jinja'));
    await writeFile(join(folder, 'a.jsonl'), records.map((record) => JSON.stringify(record)).join('\n'));
    const sources = [{name: 'a', path: join(folder, 'a.jsonl'), ...source}];
    const data = dataSchema.parse({sources, sequenceLength: 16, validation: {share: 0}, ...section});
    return {folder, data, tokenizer: await loadTokenizer(join(folder, 'model'))};
  }

  async function learntText(path: string, tokenizer: Tokenizer): Promise<string> {
    const shard = await openTokenShard(path);
    const {tokens, mask} = await shard.readRows(0, shard.rows);
    await shard.close();
    return tokenizer.decode(tokens.filter((_, i) => i % 17 > 0 && mask?.[i] === 1));
  }

  it('become rows of which answers are learnt, each once, whatever the row they fall into', async () => {
    const {folder, data, tokenizer} = await talk(TALK);
    const {sources} = await prepare({data, tokenizer, out: join(folder, 'out')});
    const [{format, train}] = sources as [(typeof sources)[0]];
    const text = await learntText(join(folder, 'out', 'a.train.arrow'), tokenizer);
    const answers = TALK.map(({messages}) => `${messages[1]?.content}<|im_end|>\n`).join('');
    expect(answers.startsWith(text)).toBe(true);
    expect(text.length).toBeGreaterThan(0.95 * answers.length);
    expect(format).toBe('chat');
    expect(train.rowsLeftOut).toBeGreaterThan(10);
    expect(train.learnt).toBeLessThan(train.tokens / 2);
    expect((train.rows + train.rowsLeftOut) * 16 + train.leftOver + 1).toBe(train.tokens);
  });

  it('are segments where boundaries are kept', async () => {
    const {folder, data, tokenizer} = await talk(TALK, {}, {boundaries: 'keep', sequenceLength: 128});
    await prepare({data, tokenizer, out: join(folder, 'out')});
    const shard = await openTokenShard(join(folder, 'out', 'a.train.arrow'), {segments: true});
    const {tokens, segments} = await shard.readRows(0, 1);
    await shard.close();
    expect(shard.columns).toEqual(['tokens', 'segments', 'mask']);
    const first = tokenizer.decode(tokens.filter((_, i) => segments?.[i] === 0));
    expect(first).toBe(tokenizer.chat?.render(TALK[0]?.messages ?? []));
  });

  it('have no mask when all is learnt', async () => {
    const {folder, data, tokenizer} = await talk(TALK, {loss: 'all'});
    await prepare({data, tokenizer, out: join(folder, 'out')});
    const shard = await openTokenShard(join(folder, 'out', 'a.train.arrow'));
    await shard.close();
    expect(shard.columns).toEqual(['tokens']);
  });

  it.each([
    ['of which nobody answers', TALK.map(({messages}) => ({messages: messages.slice(0, 1)})), 'of 40 of its documents'],
    ['of which no full row holds an answer', TALK.slice(0, 1), 'of 1 of its documents'],
  ])('%s are refused, and nothing is left', async (_, records, message) => {
    const {folder, data, tokenizer} = await talk(records);
    const preparing = prepare({
      data: {...data, sequenceLength: records.length === 1 ? 30 : 16},
      tokenizer,
      out: join(folder, 'out'),
    });
    await expect(preparing).rejects.toThrow(DataError);
    await expect(preparing).rejects.toThrow(`Source a: nothing is learnt ${message}`);
    expect((await readdir(folder)).sort()).toEqual(['a.jsonl', 'model']);
  });

  it('without a template in the model are refused with the record', async () => {
    const {folder, data} = await talk(TALK);
    const preparing = prepare({data, tokenizer: await loadTokenizer(BYTE_LEVEL), out: join(folder, 'out')});
    await expect(preparing).rejects.toThrow('a.jsonl:1: a conversation needs a chat template');
  });

  it('are not what a text is told to learn completions of', async () => {
    const {folder, data, tokenizer} = await talk([{text: 'plain'}], {loss: 'completion'});
    await expect(prepare({data, tokenizer, out: join(folder, 'out')})).rejects.toThrow(
      'Source a is to learn completions alone (loss: completion), and its records are text.',
    );
  });

  it('are prepared again for another template or loss, and text is not', async () => {
    const {folder, data, tokenizer} = await talk(TALK);
    const count = async (change: object, by: Tokenizer) => {
      let documents = 0;
      const sources = data.sources.map((source) => ({...source, ...change}));
      await closeShards(await ensureShards({...data, sources}, by, join(folder, 'cache'), () => documents++));
      return documents;
    };
    const other = {...tokenizer, chat: createChatTemplate(`x${tokenizer.chat?.source}`, {})};
    expect([await count({}, tokenizer), await count({}, tokenizer), await count({}, other)]).toEqual([40, 0, 40]);
    expect(await count({loss: 'all'}, tokenizer)).toBe(40);
    await writeFile(join(folder, 'a.jsonl'), STORY.map((text) => JSON.stringify({text})).join('\n'));
    expect([await count({format: 'text'}, tokenizer), await count({format: 'text'}, other)]).toEqual([60, 0]);
  });
});

describe('ensureShards', () => {
  async function ensure(data: DataOptions, cache: string, tokenizer = STORIES) {
    let documents = 0;
    const shards = await ensureShards(data, await loadTokenizer(tokenizer), cache, () => documents++);
    onTestFinished(() => closeShards(shards));
    const [first] = shards as [SourceShards];
    return {shards: first, documents};
  }

  it('takes what another process packed meanwhile, and leaves it there', async () => {
    const {folder, data} = await library();
    const [cache, other] = [join(folder, 'cache'), join(folder, 'other')];
    const {shards} = await ensure(data, other);
    const [name] = await readdir(other);
    const place = (): void => {
      if (!existsSync(join(cache, name!))) cpSync(join(other, name!), join(cache, name!), {recursive: true});
    };
    const found = await ensureShards(data, await loadTokenizer(STORIES), cache, place);
    onTestFinished(() => closeShards(found));
    expect(found[0]!.train.rows).toBe(shards.train.rows);
    expect(await readdir(cache)).toEqual([name]);
  });

  it('prepares once and then finds the same files', async () => {
    const {folder, data} = await library();
    const first = await ensure(data, join(folder, 'cache'));
    const {mtimeMs} = await stat(first.shards.train.path);
    const second = await ensure(data, join(folder, 'cache'));
    expect([first.documents, second.documents]).toEqual([60, 0]);
    expect(second.shards.train.path).toBe(first.shards.train.path);
    expect((await stat(second.shards.train.path)).mtimeMs).toBe(mtimeMs);
    expect(second.shards).toMatchObject({name: 'a', weight: 1, valid: {rows: first.shards.valid?.rows}});
  });

  it.each([
    ['length', {sequenceLength: 20}],
    ['boundaries', {boundaries: 'keep'}],
    ['validation share', {validation: {share: 0.3}}],
    ['reading of special tokens', {special: 'text'}],
  ])('prepares again for another %s', async (_, change) => {
    const {folder, data} = await library();
    const first = await ensure(data, join(folder, 'cache'));
    const second = await ensure({...data, ...change} as DataOptions, join(folder, 'cache'));
    expect(second.documents).toBe(60);
    expect(second.shards.train.path).not.toBe(first.shards.train.path);
  });

  it('prepares again for another tokenizer', async () => {
    const {folder, data} = await library();
    await ensure(data, join(folder, 'cache'));
    expect((await ensure(data, join(folder, 'cache'), BYTE_LEVEL)).documents).toBe(60);
  });

  it('prepares again when the text has changed', async () => {
    const {folder, data} = await library();
    await ensure(data, join(folder, 'cache'));
    await writeFile(join(folder, 'a.jsonl'), STORY.map((text) => JSON.stringify({text: `${text}!`})).join('\n'));
    expect((await ensure(data, join(folder, 'cache'))).documents).toBe(60);
  });

  it('does not prepare again for another weight', async () => {
    const {folder, data} = await library();
    await ensure(data, join(folder, 'cache'));
    const sources = data.sources.map((source) => ({...source, weight: 3}));
    const second = await ensure({...data, sources}, join(folder, 'cache'));
    expect([second.documents, second.shards.weight]).toEqual([0, 3]);
  });

  it('prepares again what is damaged', async () => {
    const {folder, data} = await library();
    const {path} = (await ensure(data, join(folder, 'cache'))).shards.train;
    await writeFile(path, (await readFile(path)).subarray(0, 300));
    expect((await ensure(data, join(folder, 'cache'))).documents).toBe(60);
  });

  it('uses a prepared folder, or a shard in it, as it is', async () => {
    const {folder, data} = await library();
    await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    await rm(join(folder, 'a.jsonl'));
    for (const path of [join(folder, 'out'), join(folder, 'out', 'a.train.arrow')]) {
      const used = await ensure(
        {...data, sources: data.sources.map((source) => ({...source, path}))},
        join(folder, 'c'),
      );
      expect(used.documents).toBe(0);
      expect(used.shards.train.path).toBe(join(folder, 'out', 'a.train.arrow'));
      expect(used.shards.valid?.path).toBe(join(folder, 'out', 'a.valid.arrow'));
    }
    expect(await readdir(folder)).toEqual(['out']);
  });

  it('refuses a prepared folder without shards of its name, and says whose it holds', async () => {
    const {folder, data} = await library();
    await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    const sources = data.sources.map((source) => ({...source, name: 'b', path: join(folder, 'out')}));
    const ensuring = ensure({...data, sources}, join(folder, 'cache'));
    await expect(ensuring).rejects.toThrow(DataError);
    await expect(ensuring).rejects.toThrow(`${join(folder, 'out')} holds shards of a, none of source b.`);
  });

  it('has no validation for a shard that stands alone', async () => {
    const {folder, data} = await library();
    await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    await rm(join(folder, 'out', 'a.valid.arrow'));
    const sources = data.sources.map((source) => ({...source, path: join(folder, 'out', 'a.train.arrow')}));
    expect((await ensure({...data, sources}, join(folder, 'cache'))).shards.valid).toBeNull();
  });

  it.each([
    ['sequence length', {sequenceLength: 32}, STORIES, 'is a shard of another sequence length: 16, asked for 32'],
    ['tokenizer', {}, BYTE_LEVEL, 'was made with another tokenizer'],
    ['boundaries', {boundaries: 'keep'}, STORIES, 'boundaries ignored, asked for kept'],
  ])('refuses a prepared shard of another %s', async (_, change, tokenizer, message) => {
    const {folder, data} = await library();
    await prepare({data, tokenizer: await loadTokenizer(STORIES), out: join(folder, 'out')});
    const sources = data.sources.map((source) => ({...source, path: join(folder, 'out')}));
    const ensuring = ensure({...data, sources, ...change} as DataOptions, join(folder, 'cache'), tokenizer);
    await expect(ensuring).rejects.toThrow(DataError);
    await expect(ensuring).rejects.toThrow(message);
  });
});
