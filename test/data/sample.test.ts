import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {parquetWriteBuffer} from 'hyparquet-writer';
import {describe, expect, it} from 'vitest';
import {dataSchema, type SampleFormat} from '../../src/data/options.js';
import type {Sample} from '../../src/data/sample.js';
import {detectFormat, readSamples} from '../../src/data/source.js';
import {DataError} from '../../src/util/errors.js';
import {collect, tempFolder} from './support.js';

async function lines(...records: unknown[]): Promise<string> {
  const path = join(await tempFolder(), 'a.jsonl');
  await writeFile(path, records.map((record) => JSON.stringify(record)).join('\n'));
  return path;
}

const samples = (path: string, format: SampleFormat, field?: string): Promise<Sample[]> =>
  collect(readSamples({name: 's', path, field}, format));
const user = (content: string) => ({role: 'user', content});
const assistant = (content: string) => ({role: 'assistant', content});

describe('the format of a source', () => {
  it.each([
    [{messages: [user('a')]}, 'chat'],
    [{prompt: 'a', completion: 'b', id: 1}, 'prompt'],
    [{instruction: 'a', input: '', output: 'b'}, 'prompt'],
    [{conversations: [{from: 'human', value: 'a'}]}, 'chat'],
    [{text: 'a', messages: []}, 'text'],
    [{prompt: 'a', target: 'b'}, 'text'],
    [{body: 'a'}, 'text'],
  ])('of a first record %o is %s', async (record, format) => {
    expect(await detectFormat({name: 's', path: await lines(record)})).toBe(format);
  });

  it('with a field is text, and so is a plain text', async () => {
    expect(await detectFormat({name: 's', path: await lines({messages: []}), field: 'messages'})).toBe('text');
    expect(await detectFormat({name: 's', path: 'test/fixtures/train/scripture.txt'})).toBe('text');
  });

  it('is found by the columns of parquet', async () => {
    const path = join(await tempFolder(), 'a.parquet');
    const columnData = ['prompt', 'completion', 'id'].map((name) => ({
      name,
      data: ['x', 'y'],
      type: 'STRING' as const,
    }));
    await writeFile(path, new Uint8Array(parquetWriteBuffer({columnData})));
    expect(await detectFormat({name: 's', path})).toBe('prompt');
    expect(await samples(path, 'prompt')).toEqual([
      {kind: 'prompt', prompt: 'x', completion: 'x'},
      {kind: 'prompt', prompt: 'y', completion: 'y'},
    ]);
  });

  it('is a key of a source', () => {
    const [source] = dataSchema.parse({sources: [{name: 'a', path: 'a', format: 'chat', loss: 'all'}]}).sources;
    expect(source).toMatchObject({format: 'chat', loss: 'all'});
  });
});

describe('a record', () => {
  it('of messages is a conversation, in the field that is named', async () => {
    const messages = [{role: 'system', content: 's'}, user('a'), {...assistant('b'), thought: 'kept'}];
    for (const [name, field] of [
      ['messages', undefined],
      ['talk', 'talk'],
    ] as const) {
      const path = await lines({[name]: messages});
      expect(await samples(path, 'chat', field)).toEqual([
        {kind: 'chat', where: `${path}:1`, messages, promptLength: 0},
      ]);
    }
  });

  it('of prompt and completion, or target, is both as they are', async () => {
    const path = await lines({prompt: 'a', completion: 'b'}, {prompt: 'a', target: 'b'}, {prompt: 'a\n', target: 'b'});
    expect(await samples(path, 'prompt')).toEqual([
      {kind: 'prompt', prompt: 'a', completion: 'b'},
      {kind: 'prompt', prompt: 'a', completion: ' b'},
      {kind: 'prompt', prompt: 'a\n', completion: 'b'},
    ]);
  });

  it('of messages as prompt and completion is a conversation of which the completion is learnt', async () => {
    const path = await lines({prompt: [user('a'), assistant('b'), user('c')], completion: [assistant('d')]});
    expect(await samples(path, 'prompt')).toMatchObject([
      {kind: 'chat', messages: [user('a'), assistant('b'), user('c'), assistant('d')], promptLength: 3},
    ]);
  });

  it('of instruction, input and output is a conversation', async () => {
    const path = await lines(
      {instruction: 'a', input: 'b', output: 'c'},
      {instruction: 'a', input: '', output: 'c', system: 's', history: [['x', 'y']]},
      {instruction: 'a', input: null, output: 'c'},
    );
    expect(await samples(path, 'prompt')).toMatchObject([
      {messages: [user('a\nb'), assistant('c')]},
      {messages: [{role: 'system', content: 's'}, user('x'), assistant('y'), user('a'), assistant('c')]},
      {messages: [user('a'), assistant('c')]},
    ]);
  });

  it.each([
    ['chat', {text: 'x'}, 'no field `messages`; fields: text.'],
    ['chat', {messages: []}, 'field `messages` is no list of messages'],
    ['chat', {messages: 'hi'}, 'field `messages` is no list of messages'],
    ['chat', {messages: [user('a'), {role: 'assistant'}]}, 'messages[1] is no message: it needs `role` and `content`'],
    ['chat', {messages: [{role: 'user', content: [{type: 'text', text: 'a'}]}]}, 'messages[0] is no message'],
    ['prompt', {prompt: 'x'}, 'no field `completion`; fields: prompt.'],
    ['prompt', {prompt: 'x', completion: 3}, 'field `completion` is no string'],
    ['prompt', {prompt: [user('a')], completion: 'b'}, 'field `completion` is no list of messages'],
    ['prompt', {instruction: 'x'}, 'no field `output`'],
    ['prompt', {instruction: 'x', output: 'y', history: [['a']]}, 'field `history` is no list of [query, answer]'],
    ['chat', 7, 'not an object'],
  ] as const)('read as %s is refused with its line: %o', async (format, record, message) => {
    const path = await lines(record);
    const reading = samples(path, format);
    await expect(reading).rejects.toThrow(DataError);
    await expect(reading).rejects.toThrow(`${path}:1: ${message}`);
  });

  it('is not looked for in plain text', async () => {
    await expect(samples('test/fixtures/train/scripture.txt', 'chat')).rejects.toThrow(
      'test/fixtures/train/scripture.txt: holds no records, and the format of source s is chat.',
    );
  });
});

describe('a conversation of ShareGPT', () => {
  const turn = (from: string, value: string) => ({from, value});

  it('is the same as one of messages', async () => {
    const [system, question, answer] = [turn('system', 's'), turn('human', 'q'), turn('gpt', 'a')];
    const path = await lines(
      {conversations: [system, question, answer]},
      {system: 's', conversations: [question, answer]},
      {system: 's', messages: [user('q'), assistant('a')]},
      {system: 'another', messages: [{role: 'system', content: 's'}, user('q'), assistant('a')]},
    );
    const messages = [{role: 'system', content: 's'}, user('q'), assistant('a')];
    const found = await samples(path, 'chat');
    expect(found).toMatchObject([
      {kind: 'chat', messages, promptLength: 0},
      {kind: 'chat', messages, promptLength: 0},
      {kind: 'chat', messages, promptLength: 0},
      {kind: 'chat', messages, promptLength: 0},
    ]);
  });

  it('may stand in a field that is named', async () => {
    const path = await lines({dialogue: [turn('user', 'q'), turn('assistant', 'a')]});
    expect(await samples(path, 'chat', 'dialogue')).toMatchObject([{messages: [user('q'), assistant('a')]}]);
  });

  it('of somebody unknown is refused, with the place and those who are known', async () => {
    const path = await lines({conversations: [turn('human', 'q'), turn('observation', '42')]});
    const error: unknown = await samples(path, 'chat').catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(DataError);
    expect((error as Error).message).toBe(
      `${path}:1: conversations[1]: nobody is called "observation" here; known are human, user, gpt, assistant, system.`,
    );
  });

  it('without a value is no message', async () => {
    const path = await lines({conversations: [{from: 'human'}]});
    await expect(samples(path, 'chat')).rejects.toThrow(/conversations\[0\] is no message/);
  });
});
