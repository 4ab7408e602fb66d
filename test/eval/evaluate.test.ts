import {cp, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {describe, expect, it} from 'vitest';
import {type EvaluateOptions, type EvaluateProgress, evaluate} from '../../src/eval/evaluate.js';
import {useScratch} from '../format/scratch.js';
import {expectNoLeak, onEngine} from '../support/engines.js';
import {DENSE, MOE, TEXT, writeModel} from '../train/support.js';

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
    [{tasks: ['a'], seed: 3}, '--seed does nothing without --against.'],
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
    await refused({model, tasks: [scratch('no.jsonl')]}, /no\.jsonl cannot be read/);
    await refused({model, text: [scratch('no.txt')]}, /no\.txt does not exist/);
    await writeFile(scratch('short.txt'), 'I');
    await refused({model, text: [scratch('short.txt')]}, 'Text short has 1 tokens, of which none can be foretold.');
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

  it('texts that two tokenizers cut into other tokens', async () => {
    const against = 'checkpoints/dense-2m';
    await refused({text: [TEXT], against, tokens: 100}, /The tokenizers of .* cut scripture into other tokens/);
  });
});
