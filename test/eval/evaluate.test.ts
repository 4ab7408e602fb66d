import {cp, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {type EvaluateOptions, type EvaluateProgress, evaluate} from '../../src/eval/evaluate.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {useScratch} from '../format/scratch.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {DENSE, experts, MOE, ROUTED, TEXT, tiny, writeModel} from '../train/support.js';

const scratch = useScratch();
const RECORDS = [
  {query: 'In the', choices: ['be', 'the word', 'and'], gold: 1},
  {query: 'the', choices: ['b', 'e'], gold: 0},
  {query: 'and', choices: ['it was', 'o'], gold: 1},
];

async function taskFile(name = 'task.jsonl', records: readonly object[] = RECORDS): Promise<string> {
  await writeFile(scratch(name), records.map((one) => `${JSON.stringify(one)}\n`).join(''));
  return scratch(name);
}

describe('evaluate', () => {
  onEngine('wasm', 'measures a model against itself, and finds no difference', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    const tasks = [await taskFile()];
    const told: EvaluateProgress[] = [];
    await expectNoLeak(async () => {
      const {against, window, stride, ...found} = await evaluate(
        {model, tasks, text: [TEXT], tokens: 150, against: model},
        (progress) => told.push(progress),
      );
      expect([window, stride]).toEqual([64, 32]);
      expect(found.tasks).toMatchObject([{name: 'task', items: 3, fewShot: 0, cut: 0}]);
      expect(found.texts).toMatchObject([{name: 'scripture', tokens: 149, windows: 4}]);
      expect(found.texts[0]!.perplexity).toBeGreaterThan(100); // nothing was learnt of 274 words
      const {differences, ...other} = against!;
      expect(other).toEqual(found);
      expect(differences.map(({name, measure}) => [name, measure])).toEqual([
        ['task', 'acc'],
        ['task', 'acc_norm'],
        ['scripture', 'loss'],
      ]);
      for (const {difference, interval, better} of differences) {
        expect([difference, ...interval, better]).toEqual([0, 0, 0, 0.5]);
      }
    });
    expect(told.at(-1)).toMatchObject({model, layer: 2, layers: 2});
  });

  onEngine('wasm', 'turns all signs when the models are exchanged', async () => {
    const one = await writeModel(scratch('one'), DENSE);
    const two = await writeModel(scratch('two'), MOE);
    const measure = async (model: string, against: string) =>
      (await evaluate({model, against, text: [TEXT], tokens: 200, window: 20, seed: 3})).against!.differences[0]!;
    const [there, back] = [await measure(one, two), await measure(two, one)];
    expect(there.difference).not.toBe(0);
    expect(back.difference).toBe(-there.difference);
    expect(back.interval).toEqual([-there.interval[1], -there.interval[0]]);
    expect(back.better).toBeCloseTo(1 - there.better, 12);
  });

  onEngine('wasm', 'cuts contexts that are too long, and says of how many choices', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    const tasks = [await taskFile('long.jsonl', [{query: 'the '.repeat(90), choices: ['be', 'and'], gold: 1}])];
    expect((await evaluate({model, tasks})).tasks).toMatchObject([{cut: 2, acc: {stderr: null}}]);
  });
});

describe('evaluate with routing', () => {
  /** A router of 8 experts by the largest of 8 numbers of the embedding: token v goes to experts v mod 8 and the next. */
  const writeByHand = (path: string): Promise<string> =>
    writeModel(path, ROUTED, ({path: name, shape}, values) => {
      const width = shape[1] ?? 0;
      const at = (i: number): number => (i % width) - (Math.floor(i / width) % 8);
      if (name === 'embed') return values.map((_, i) => (at(i) === 0 ? 1 : 0));
      if (name.endsWith('attention.o')) return values.map(() => 0);
      if (!name.endsWith('ffn.router')) return values;
      return values.map((_, i) => [2, 1][(at(i) + 8) % 8] ?? 0);
    });

  onEngine('wasm', 'counts each token of a text once, where a router made by hand sends it', async () => {
    const model = await writeByHand(scratch('model'));
    const text = [TEXT];
    const {routing, texts} = await expectNoLeak(() =>
      evaluate({model, text, tasks: [], tokens: 90, window: 20, routing: true}),
    );
    const tokenizer = await loadTokenizer(model);
    const tokens = tokenizer.encode(await readFile(TEXT, 'utf8'), {addSpecial: false}).subarray(0, 89);
    const use = Array.from({length: 8}, (_, e) => tokens.filter((v) => v % 8 === e || (v + 1) % 8 === e).length);
    const both = Array.from({length: 8}, (_, e) => tokens.filter((v) => v % 8 === e).length);
    expect(texts[0]!.windows).toBeGreaterThan(1);
    expect(routing!.texts).toEqual([{name: 'scripture', tokens: 89}]);
    const [layer] = routing!.layers;
    expect(layer!.load).toEqual(use.map((count) => count / 89));
    expect(layer!.together.map((row, e) => row[(e + 1) % 8])).toEqual(both);
  });

  onEngine('wasm', 'parts domains and leaves tasks out, in the layers that have experts', async () => {
    const model = await writeModel(scratch('model'), tiny([{kind: 'dense', width: 64}, experts(4, 2)]));
    const records = ['In the', 'and the', 'God'].map((text, i) => ({text, domain: i < 2 ? 'a' : 'b'}));
    const text = [await taskFile('texts.jsonl', records)];
    const plan = {text, by: 'domain', tasks: [await taskFile()], routing: true};
    const {whole, texts, routing, against} = await evaluate({model, ...plan, against: model});
    expect(routing!.texts.map(({name}) => name)).toEqual(['texts a', 'texts b']);
    expect(routing!.texts.map(({tokens}) => tokens)).toEqual(texts.map(({tokens}) => tokens));
    expect(routing!.layers.map(({layer, experts: count}) => [layer, count])).toEqual([[1, 4]]);
    expect(routing!.layers[0]!.load.reduce((sum, share) => sum + share, 0)).toBeCloseTo(2, 12);
    expect(against!.routing).toEqual(routing);
    expect(whole!.tokens).toBe(texts[0]!.tokens + texts[1]!.tokens);
    expect(against!.differences.map(({name}) => name)).toEqual(['task', 'task', 'texts a', 'texts b', 'all']);
  });
});

describe('evaluate refuses', () => {
  async function refused(options: Partial<EvaluateOptions>, message: string | RegExp): Promise<void> {
    const model = options.model ?? (await writeModel(scratch('model'), DENSE));
    await expect(evaluate({...options, model})).rejects.toThrow(message);
  }

  it.each([
    [{}, 'What shall be measured?'],
    [{text: [TEXT], limit: 3}, '--limit does nothing without --tasks.'],
    [{text: [TEXT], fewShot: 3}, '--few-shot does nothing without --tasks.'],
    [{tasks: ['a'], stride: 3}, '--stride does nothing without --text.'],
    [{tasks: ['a'], routing: true}, '--routing does nothing without --text.'],
    [{tasks: ['a'], seed: 3}, '--seed does nothing without --against.'],
    [{tasks: ['nowhere.jsonl'], routing: false}, 'nowhere.jsonl'],
  ])('%j', (options, message) => refused(options, message));

  it('a window that the model does not take, or a stride that leaves out tokens', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    await refused(
      {model, text: [TEXT], window: 65},
      /^A window of 65 tokens is more than the 64 that .*model takes\.$/,
    );
    await refused(
      {model, text: [TEXT], window: 8, stride: 9},
      'With a stride of 9, tokens between windows of 8 would be left',
    );
  });

  it('files that are missing or hold nothing', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    await refused({model, tasks: [scratch('no.jsonl')]}, /no\.jsonl: there is no such file\.$/);
    await refused({model, text: [scratch('no.txt')]}, /no\.txt does not exist/);
    await writeFile(scratch('short.txt'), 'I');
    await refused(
      {model, text: [scratch('short.txt')]},
      'Of text short 1 tokens are read, of which none can be foretold.',
    );
  });

  it('a model without a tokenizer', async () => {
    const model = await writeModel(scratch('bare'), DENSE);
    await rm(join(model, 'tokenizer.json'));
    await refused({model, text: [TEXT]}, 'tokenizer.json does not exist; a model folder needs its tokenizer.');
  });

  it('a tokenizer with more words than the model', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    await cp('checkpoints/dense-2m/tokenizer.json', join(model, 'tokenizer.json'));
    await refused({model, text: [TEXT]}, /model: token \d+ of the text is outside the vocabulary of 274\./);
  });

  it('to watch routers that are not there', async () => {
    const model = await writeModel(scratch('model'), DENSE);
    await refused({model, text: [TEXT], routing: true}, /model is dense: it has no routers to watch\.$/);
    await refused({model, text: [TEXT], routing: true, against: model}, /are dense: they have no routers to watch\.$/);
  });

  it('texts that two tokenizers cut into other tokens', async () => {
    const against = 'checkpoints/dense-2m';
    await refused({text: [TEXT], against, tokens: 100}, /The tokenizers of .* cut scripture into other tokens/);
  });
});
