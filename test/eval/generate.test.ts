import {existsSync} from 'node:fs';
import {copyFile, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {type Generated, type GenerateEvent, type GenerateOptions, generate} from '../../src/eval/generate.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {withEngine} from '../support/engines.js';
import {DENSE, experts, TOKENIZER, tempFolder, tiny, writeModel} from '../train/support.js';

const prompt = {kind: 'text', text: 'In the beginning'} as const;
const chat = {kind: 'chat', messages: [{role: 'user', content: 'Who?'}]} as const;

async function modelFolder(architecture = DENSE): Promise<string> {
  return writeModel(join(await tempFolder(), 'model'), architecture);
}

/** Runs on wasm, where nothing is compiled. */
function run(
  options: Partial<GenerateOptions> & {model: string},
  onEvent?: (event: GenerateEvent) => void,
  shouldStop?: () => boolean,
): Promise<Generated> {
  return withEngine('wasm', () => generate({prompt, maxTokens: 6, ...options}, onEvent, shouldStop));
}

describe('generate', () => {
  it('gives the text that its pieces make, and its tokens', async () => {
    const model = await modelFolder(tiny([experts(8, 2)]));
    const pieces: string[] = [];
    const generated = await run({model}, (event) => event.kind === 'text' && pieces.push(event.text));
    const tokenizer = await loadTokenizer(model);
    const promptTokens = [...tokenizer.encode(prompt.text)];
    expect(generated).toMatchObject({model, prompt: prompt.text, promptTokens, end: 'length'});
    expect(generated.tokens).toHaveLength(6);
    expect(generated.text).toBe(tokenizer.decode(generated.tokens, {skipSpecial: true}));
    expect(pieces.join('')).toBe(generated.text);
  });

  it('writes a conversation as the template has it', async () => {
    const model = await modelFolder();
    await copyFile('test/fixtures/tokenizer/chat/chatml.jinja', join(model, 'chat_template.jinja'));
    const {prompt: text, promptTokens} = await run({model, prompt: chat});
    expect(text).toMatch(/<\|im_start\|>user\nWho\?<\|im_end\|>\n<\|im_start\|>assistant\n$/);
    expect(promptTokens).toEqual([...(await loadTokenizer(TOKENIZER)).encode(text, {addSpecial: false})]);
  });

  it('ends at the end token of generation_config.json, else of config.json, else of the tokenizer', async () => {
    const model = await modelFolder();
    const [first = 0] = (await run({model, maxTokens: 1})).tokens;
    const ended = {tokens: [], text: '', end: 'stop'};
    await edit(join(model, 'tokenizer_config.json'), {eos_token: await contentOf(first)});
    expect(await run({model})).toMatchObject(ended);
    await edit(join(model, 'config.json'), {eos_token_id: first + 1});
    expect(await run({model})).toMatchObject({end: 'length'});
    await edit(join(model, 'config.json'), {eos_token_id: first});
    expect(await run({model})).toMatchObject(ended);
    await edit(join(model, 'generation_config.json'), {eos_token_id: first + 1});
    expect(await run({model})).toMatchObject({end: 'length'});
    await edit(join(model, 'generation_config.json'), {eos_token_id: [first + 1, first]});
    expect(await run({model})).toMatchObject(ended);
  });

  it('ends before a string that ends the text', async () => {
    const model = await modelFolder();
    const {text} = await run({model});
    const stop = text.slice(2, 4);
    const {text: shown, end} = await run({model, stop: ['never', stop]});
    expect({shown, end}).toEqual({shown: text.slice(0, text.indexOf(stop)), end: 'string'});
  });

  it('ends at a special token that is asked for by its name, which no text shows', async () => {
    const model = await modelFolder();
    const [first = 0] = (await run({model, maxTokens: 1})).tokens;
    const name = await contentOf(first);
    const file = join(model, 'tokenizer.json');
    const {added_tokens: added, ...definition} = JSON.parse(await readFile(file, 'utf8')) as {added_tokens: object[]};
    await writeFile(
      file,
      JSON.stringify({...definition, added_tokens: [...added, {id: first, content: name, special: true}]}),
    );
    expect((await run({model})).end).toBe('length');
    expect(await run({model, stop: ['never', name]})).toMatchObject({tokens: [], text: '', end: 'stop'});
  });

  it('puts only what stands before a text around its prompt', async () => {
    const model = await modelFolder();
    const [begin, end] = [await contentOf(1), await contentOf(2)];
    const around = [begin, null, end].map((id) =>
      id === null ? {Sequence: {id: 'A', type_id: 0}} : {SpecialToken: {id, type_id: 0}},
    );
    await edit(join(model, 'tokenizer.json'), {
      post_processor: {type: 'TemplateProcessing', single: around, pair: around, special_tokens: {}},
    });
    const plain = [...(await loadTokenizer(TOKENIZER)).encode(prompt.text, {addSpecial: false})];
    expect((await run({model})).promptTokens).toEqual([1, ...plain]);
  });

  it('tells of what a model has and does not use', async () => {
    const model = await modelFolder({...DENSE, tied: false});
    await edit(join(model, 'config.json'), {tie_word_embeddings: true});
    const told: string[] = [];
    await run({model, maxTokens: 1}, (event) => event.kind === 'warning' && told.push(event.text));
    expect(told).toEqual([expect.stringMatching(/does not ask for tensor lm_head\.weight; ignored\.$/)]);
  });

  it('tells of a tokenizer with more ids than the model', async () => {
    const model = await modelFolder({...DENSE, vocab: 200});
    const told: string[] = [];
    await run({model, maxTokens: 1}, (event) => event.kind === 'warning' && told.push(event.text));
    expect(told).toEqual([
      `${model}: the embedding has 200 rows, the tokenizer knows 274 ids; text is nonsense if it is that of another model.`,
    ]);
  });

  it('ends when it is interrupted', async () => {
    const model = await modelFolder();
    let asked = 0;
    const {tokens, end} = await run({model}, undefined, () => ++asked === 2);
    expect({count: tokens.length, end}).toEqual({count: 2, end: 'interrupted'});
  });

  it('draws the same from the same seed', async () => {
    const model = await modelFolder();
    const sampling = {kind: 'random', temperature: 1, topP: 0.9} as const;
    const texts = [];
    for (const seed of [3, 3, 4]) texts.push((await run({model, sampling, seed})).text);
    expect(texts[1]).toBe(texts[0]);
    expect(texts[2]).not.toBe(texts[0]);
  });
});

describe('generate refuses', () => {
  it.each([
    [{prompt: {...prompt, text: ''}}, 'DataError', 'The prompt is empty.'],
    [
      {prompt: {...prompt, text: 'a b '.repeat(40)}},
      'DataError',
      /^The prompt has \d+ tokens; the model has 64 positions, for new tokens, too\.$/,
    ],
    [
      {maxTokens: 64},
      'UsageError',
      /^A prompt of \d+ tokens and 64 new ones are more than the 64 positions of the model\.$/,
    ],
    [{stop: ['']}, 'UsageError', 'A string that ends the text must not be empty.'],
    [
      {sampling: {kind: 'random', temperature: -1, topP: 1}},
      'UsageError',
      'temperature is -1; a number above 0 is needed.',
    ],
    [{prompt: chat}, 'ModelError', /model has no chat template, so it does not say how conversations are written\.$/],
  ] as const)('%j', async (options, name, message) => {
    const model = await modelFolder();
    await expect(run({model, ...options})).rejects.toMatchObject({
      name,
      message: typeof message === 'string' ? message : (expect.stringMatching(message) as string),
    });
  });

  it('a tokenizer with more ids than the model, once the prompt has one of them', async () => {
    const model = await modelFolder({...DENSE, vocab: 40});
    await expect(run({model})).rejects.toMatchObject({
      name: 'DataError',
      message: expect.stringMatching(/^The prompt has token \d+; the model's vocabulary is 0 to 39\.$/) as string,
    });
  });

  it('a template that refuses the conversation, with its words', async () => {
    const model = await modelFolder();
    await writeFile(join(model, 'chat_template.jinja'), "{{ raise_exception('say please') }}");
    await expect(run({model, prompt: chat})).rejects.toMatchObject({
      name: 'ModelError',
      message: `The chat template of ${model} refuses the conversation: say please`,
    });
  });

  it('an end token that is none', async () => {
    const model = await modelFolder();
    await edit(join(model, 'generation_config.json'), {eos_token_id: 'end'});
    await expect(run({model})).rejects.toMatchObject({
      name: 'ModelError',
      message: `${join(model, 'generation_config.json')}: eos_token_id is neither an id nor a list of ids.`,
    });
  });
});

/** Changes keys of a JSON file, which is made if it is not there. */
async function edit(path: string, changes: object): Promise<void> {
  const before = existsSync(path) ? (JSON.parse(await readFile(path, 'utf8')) as object) : {};
  await writeFile(path, JSON.stringify({...before, ...changes}));
}

/** How the tokenizer's file writes a token. */
async function contentOf(id: number): Promise<string> {
  const {model, added_tokens: added} = JSON.parse(await readFile(join(TOKENIZER, 'tokenizer.json'), 'utf8')) as {
    model: {vocab: Record<string, number>};
    added_tokens: {id: number; content: string}[];
  };
  const all = [...Object.entries(model.vocab), ...added.map((token) => [token.content, token.id] as const)];
  return all.find(([, one]) => one === id)?.[0] ?? '';
}
