import {writeFile} from 'node:fs/promises';
import {describe, expect, it} from 'vitest';
import {type ChoiceItem, type ChoiceOptions, readChoiceItems} from '../../src/eval/choice-items.js';
import {accuracyOf, answersOf, choiceSequences} from '../../src/eval/multiple-choice.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {useScratch} from '../format/scratch.js';

const scratch = useScratch();
const tokenizer = await loadTokenizer('checkpoints/dense-2m');
const question = (query: string, choices: readonly unknown[], gold: unknown = 0) => ({query, choices, gold});

async function read(records: readonly unknown[], options?: ChoiceOptions): Promise<ChoiceItem[]> {
  const path = scratch('task.jsonl');
  await writeFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  return readChoiceItems(path, options);
}

describe('readChoiceItems', () => {
  it('puts a space before every choice, as lm-evaluation-harness does: also before one that begins with a space', async () => {
    const items = await read([question('a', ['b', ' c']), question('a\n', ['b', 'd'], 1)]);
    expect(items.map(({pairs}) => pairs.map(({context, continuation}) => context + continuation))).toEqual([
      ['a b', 'a  c'],
      ['a\n b', 'a\n d'],
    ]);
    expect(items.map(({gold}) => gold)).toEqual([0, 1]);
  });

  it('counts characters of choices as Python does', async () => {
    expect((await read([question('a', ['é', '🐘x', ' c'])]))[0]!.lengths).toEqual([1, 2, 2]);
  });

  it('reads contexts to choose from', async () => {
    const [item] = await read([{context_options: ['Ann saw', 'Bob saw'], continuation: 'it.', gold: 1}]);
    expect(item).toMatchObject({
      pairs: [
        {context: 'Ann saw', continuation: ' it.'},
        {context: 'Bob saw', continuation: ' it.'},
      ],
      gold: 1,
      lengths: null,
    });
  });

  it('shows the first records with their answers, and measures as many of the others as are asked for', async () => {
    const records = ['p', 'q', 'r', 's'].map((query, i) => question(query, ['no', 'yes'], i % 2));
    const items = await read(records, {fewShot: 2, limit: 1});
    expect(items.map(({pairs}) => pairs)).toEqual([
      [
        {context: 'p no\n\nq yes\n\nr', continuation: ' no'},
        {context: 'p no\n\nq yes\n\nr', continuation: ' yes'},
      ],
    ]);
    expect(items[0]!.where).toBe(`${scratch('task.jsonl')}:3`);
  });

  it.each([
    ['no choices', {query: 'a', gold: 0}, 'task.jsonl:2: no field `choices`; fields: query, gold.'],
    ['an empty list', question('a', []), 'task.jsonl:2: field `choices` is no list of texts; fields:'],
    ['an empty choice', question('a', ['b', '']), 'task.jsonl:2: field `choices` is no list of texts'],
    ['a number for a choice', question('a', [1]), 'field `choices` is no list of texts'],
    ['no gold', {query: 'a', choices: ['b']}, 'task.jsonl:2: no field `gold`'],
    ['gold out of range', question('a', ['b', 'c'], 2), 'field `gold` is no place in 2 choices, 0 to 1 (2);'],
    ['gold that is a word', question('a', ['b', 'c'], 'b'), 'is no place in 2 choices, 0 to 1 ("b");'],
    ['no question', {choices: ['b'], gold: 0}, 'task.jsonl:2: no field `query`'],
    ['no continuation', {context_options: ['b'], gold: 0}, 'task.jsonl:2: no field `continuation`'],
    ['a list', [], 'task.jsonl:2: not an object.'],
  ])('refuses %s, naming file and line', async (_, record, message) => {
    await expect(read([question('a', ['b']), record])).rejects.toThrow(message);
  });

  it('refuses a file without records, or with none left to measure', async () => {
    await expect(read([])).rejects.toThrow('task.jsonl holds no records.');
    await expect(read([question('a', ['b'])], {fewShot: 1})).rejects.toThrow(
      'has 1 records, and 1 are to be shown before the others.',
    );
    await expect(read([question('a', ['b'])], {limit: 0})).rejects.toThrow('limit is 0; at least one item is needed.');
  });
});

describe('choiceSequences', () => {
  const decoded = (items: readonly ChoiceItem[], contextLength = 64) =>
    choiceSequences(items, tokenizer, contextLength).map(({tokens, from}) => [
      tokenizer.decode(tokens.subarray(0, from)),
      tokenizer.decode(tokens.subarray(from)),
    ]);

  it('foretells the continuation, with the spaces before it', async () => {
    expect(decoded(await read([question('In the beginning', ['was', ' God'])]))).toEqual([
      ['In the beginning', ' was'],
      ['In the beginning', '  God'],
    ]);
  });

  it('leaves out the beginning of a context that is too long', async () => {
    const items = await read([question('0123456789', ['abc'])]);
    const [whole] = choiceSequences(items, tokenizer, 64);
    const count = whole!.tokens.length - whole!.from;
    const [cut] = choiceSequences(items, tokenizer, count + 2);
    expect([whole!.isCut, cut!.isCut]).toEqual([false, true]);
    expect([...cut!.tokens]).toEqual([...whole!.tokens.subarray(whole!.from - 3)]);
    expect(cut!.from).toBe(3);
  });

  it('foretells a choice without a context from the token that begins or ends texts', async () => {
    const [sequence] = choiceSequences(await read([question('', ['was'])]), tokenizer, 64);
    expect(sequence!.from).toBe(1);
    expect(sequence!.tokens[0]).toBe(tokenizer.bosId ?? tokenizer.eosId);
    expect(tokenizer.decode(sequence!.tokens.subarray(1))).toBe(' was');
  });

  it('refuses a choice that is longer than the model takes, naming the record', async () => {
    const items = await read([question('a', ['b', 'words and words and words'])]);
    expect(() => choiceSequences(items, tokenizer, 2)).toThrow(/task\.jsonl:1: choice 1 is \d+ tokens; 1 to 2 can be/);
  });
});

describe('answersOf', () => {
  const item = (gold: number, lengths: readonly number[]): ChoiceItem => ({
    where: '',
    gold,
    lengths,
    pairs: lengths.map(() => ({context: '', continuation: ''})),
  });

  it('takes the likeliest choice, by itself and by character, the first of equal ones', () => {
    const items = [item(0, [1, 10]), item(1, [1, 10]), item(0, [2, 2, 2])];
    const losses = Float64Array.of(2, 5, 2, 5, 3, 3, 4);
    expect(answersOf(items, losses)).toEqual({acc: [1, 0, 1], accNorm: [0, 1, 1]});
  });

  it('has no share by character where contexts are chosen', () => {
    expect(answersOf([{...item(0, [1, 1]), lengths: null}], Float64Array.of(1, 2))).toEqual({acc: [1], accNorm: null});
  });
});

it('accuracyOf has the standard error of the sample mean, which one item has not', () => {
  expect(accuracyOf([1, 0, 0, 1, 1])).toEqual({value: 0.6, stderr: expect.closeTo(Math.sqrt(0.3 / 5), 12) as number});
  expect(accuracyOf([1])).toEqual({value: 1, stderr: null});
});
