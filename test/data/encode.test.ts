import {cp, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {encodeSample} from '../../src/data/encode.js';
import {documentIds} from '../../src/data/pack.js';
import type {Sample} from '../../src/data/sample.js';
import {type ChatMessage, createChatTemplate} from '../../src/tokenizer/chat-template.js';
import {loadTokenizer, type Tokenizer} from '../../src/tokenizer/tokenizer.js';
import {DataError} from '../../src/util/errors.js';
import {BYTE_LEVEL, STORIES, tempFolder} from './support.js';

interface Golden {
  readonly messages: ChatMessage[];
  readonly text: string;
  readonly ids: number[];
  readonly mask: number[];
}

const GOLDENS = JSON.parse(await readFile('test/fixtures/tokenizer/chat/golden.json', 'utf8')) as Record<
  string,
  Record<string, Golden>
>;
const OPTIONS = {special: 'recognised', loss: 'completion'} as const;

/** A model's tokenizer files with a chat template beside them. */
async function withTemplate(folder: string, template: string): Promise<Tokenizer> {
  const copy = await tempFolder();
  await cp(folder, copy, {recursive: true});
  await writeFile(join(copy, 'chat_template.jinja'), template);
  return loadTokenizer(copy);
}

async function fixture(name: 'chatml' | 'llama'): Promise<Tokenizer> {
  const template = await readFile(`test/fixtures/tokenizer/chat/${name}.jinja`, 'utf8');
  return withTemplate(name === 'chatml' ? BYTE_LEVEL : STORIES, template);
}

function chat(messages: readonly ChatMessage[], promptLength = 0): Sample {
  return {kind: 'chat', where: 'a.jsonl:1', messages, promptLength};
}

const turns = (...contents: string[]): ChatMessage[] =>
  contents.map((content, i) => ({role: i % 2 === 0 ? 'user' : 'assistant', content}));

describe.each(['chatml', 'llama'] as const)('a conversation in the template %s', (name) => {
  it.each(Object.entries(GOLDENS[name] ?? {}))('is what transformers makes of it: %s', async (_, golden) => {
    const tokenizer = await fixture(name);
    expect(tokenizer.chat?.render(golden.messages)).toBe(golden.text);
    const {ids, mask} = encodeSample(tokenizer, chat(golden.messages), OPTIONS);
    expect([...ids]).toEqual(golden.ids);
    expect([...(mask ?? [])]).toEqual(golden.mask);
  });
});

describe('a conversation', () => {
  it('is learnt whole when the loss is of all', async () => {
    const {mask, ids} = encodeSample(await fixture('chatml'), chat(turns('a', 'b')), {...OPTIONS, loss: 'all'});
    expect(mask).toBeUndefined();
    expect(ids.length).toBeGreaterThan(10);
  });

  it('of prompt and completion is learnt from the completion on', async () => {
    const tokenizer = await fixture('chatml');
    const all = encodeSample(tokenizer, chat(turns('a', 'b', 'c', 'd')), OPTIONS);
    const last = encodeSample(tokenizer, chat(turns('a', 'b', 'c', 'd'), 3), OPTIONS);
    const first = all.mask?.indexOf(1) ?? -1;
    const begin = last.mask?.indexOf(1) ?? -1;
    expect(begin).toBeGreaterThan(first);
    expect(last.mask?.subarray(begin)).toEqual(all.mask?.subarray(begin));
  });

  it('is learnt from where the answer begins if the template opens it with other words', async () => {
    const template = `{% for m in messages %}{{ m['role'] + ':' + m['content'] + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:<think>' }}{% endif %}`;
    const tokenizer = await withTemplate(BYTE_LEVEL, template);
    const {ids, mask} = encodeSample(tokenizer, chat(turns('a', 'bc')), OPTIONS);
    const learnt = ids.filter((_, i) => mask?.[i] === 1);
    expect(tokenizer.decode(learnt)).toBe('bc\n');
  });

  it('without a template is refused, saying where one comes from', async () => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    const encode = () => encodeSample(tokenizer, chat(turns('a', 'b')), OPTIONS);
    expect(encode).toThrow(DataError);
    expect(encode).toThrow("a.jsonl:1: a conversation needs a chat template, and the model's folder has none.");
    expect(encode).toThrow(expect.objectContaining({hint: expect.stringContaining('chat_template.jinja') as string}));
  });

  it('that the template refuses is named, with its reason', async () => {
    const tokenizer = await fixture('llama');
    const encode = () => encodeSample(tokenizer, chat([...turns('a'), ...turns('b')]), OPTIONS);
    expect(encode).toThrow(DataError);
    expect(encode).toThrow('a.jsonl:1: the chat template refuses the conversation: Conversation roles must alternate');
  });

  it('whose beginning the template changes afterwards cannot be masked, and says so', async () => {
    const template = `{% for m in messages %}{% if loop.last %}{{ m['content'] }}{% else %}{{ m['content'] | upper }}{% endif %}{% endfor %}`;
    const tokenizer = await withTemplate(BYTE_LEVEL, template);
    const encode = () => encodeSample(tokenizer, chat(turns('a', 'b', 'c')), OPTIONS);
    expect(encode).toThrow(DataError);
    expect(encode).toThrow('a.jsonl:1: the chat template writes messages[1] in another way when more messages follow.');
    expect(encodeSample(tokenizer, chat(turns('a', 'b')), OPTIONS).mask?.at(-1)).toBe(1);
  });

  it('in a broken template is refused', async () => {
    const tokenizer = await withTemplate(BYTE_LEVEL, '{% for m in messages %}');
    expect(() => encodeSample(tokenizer, chat(turns('a', 'b')), OPTIONS)).toThrow(
      'a.jsonl:1: the chat template refuses the conversation',
    );
  });
});

describe('a prompt with its completion', () => {
  const sample = {kind: 'prompt', prompt: 'Say it:', completion: ' or else'} as const;

  it.each([BYTE_LEVEL, STORIES])(
    'is one document of which the completion and the end are learnt: %s',
    async (folder) => {
      const tokenizer = await loadTokenizer(folder);
      const {ids, mask} = encodeSample(tokenizer, sample, OPTIONS);
      expect([...ids]).toEqual([...documentIds(tokenizer, 'Say it: or else')]);
      const learnt = ids.filter((_, i) => mask?.[i] === 1);
      expect(tokenizer.decode(learnt.subarray(0, -1)).trim()).toBe('or else');
      expect(learnt.at(-1)).toBe(tokenizer.eosId);
    },
  );

  it('is learnt from the first token that is not the prompt’s where the two run together', async () => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    const [prompt, completion] = ['new ', ' \r\n'];
    const {ids, mask} = encodeSample(tokenizer, {kind: 'prompt', prompt, completion}, OPTIONS);
    const alone = tokenizer.encode(prompt);
    expect(mask?.indexOf(1)).toBe([...alone].findIndex((id, i) => id !== ids[i]) === -1 ? alone.length : 1);
    expect(mask?.at(-1)).toBe(1);
  });

  it('is learnt whole when the loss is of all', async () => {
    expect(encodeSample(await loadTokenizer(BYTE_LEVEL), sample, {...OPTIONS, loss: 'all'}).mask).toBeUndefined();
  });
});

describe('the template of a folder', () => {
  async function sourceOf(setting: unknown, file?: string): Promise<string | undefined> {
    const folder = await tempFolder();
    await cp(BYTE_LEVEL, folder, {recursive: true});
    await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({chat_template: setting}));
    if (file !== undefined) await writeFile(join(folder, 'chat_template.jinja'), file);
    return (await loadTokenizer(folder)).chat?.source;
  }

  it.each([
    ['a setting', 'one', undefined, 'one'],
    ['a file beside it, which wins', 'one', 'two', 'two'],
    [
      'the default of several',
      [
        {name: 'rag', template: 'r'},
        {name: 'default', template: 'd'},
      ],
      undefined,
      'd',
    ],
    ['several without a default: none', [{name: 'rag', template: 'r'}], undefined, undefined],
    ['nothing', null, undefined, undefined],
  ])('is %s', async (_, setting, file, found) => {
    expect(await sourceOf(setting, file)).toBe(found);
  });

  it('knows special tokens, and no clock', () => {
    const template = createChatTemplate('{{ bos_token }}{{ strftime_now is defined }}', {bos_token: '<s>'});
    expect(template.render([])).toBe('<s>false');
  });

  it('keeps the white space it begins with', () => {
    expect(createChatTemplate('\n  {% if true %}\n a\n{% endif %}', {}).render([])).toBe('\n a\n');
    expect(createChatTemplate('  {% if true %} a{% endif %}', {}).render([])).toBe(' a');
  });
});
