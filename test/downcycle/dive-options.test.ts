import {describe, expect, it} from 'vitest';
import {differenceOf} from '../../src/downcycle/difference.js';
import {isDive} from '../../src/downcycle/dive-options.js';
import {isSplit, methodSchema} from '../../src/downcycle/options.js';

const dive = {method: 'dive', experts: 4, topK: 1};
const messages = (input: object): string[] =>
  (methodSchema.safeParse(input).error?.issues ?? []).map(({path, message}) => `${path.join('.')}: ${message}`);

describe('the options of dive', () => {
  it('keep half of the neurons and renormalise, unless said otherwise', () => {
    expect(methodSchema.parse(dive)).toEqual({...dive, keep: 0.5, renormalise: true});
    expect(methodSchema.parse({...dive, topK: 2, keep: 0.25, renormalise: false})).toMatchObject({keep: 0.25});
  });

  it('have no shared part, and keep a share of the neurons', () => {
    expect(messages({...dive, shared: 1})).toHaveLength(1);
    for (const keep of [0, -1, 1.01]) expect(messages({...dive, keep})[0]).toMatch(/^keep: /);
    expect(messages({...dive, topK: 5})).toEqual([
      'topK: topK (= 5) must be at most experts (= 4). Lower topK or raise experts.',
    ]);
  });

  it('are neither a split nor copies', () => {
    const kinds = ['dive', 'sparse-upcycle', 'random'].map((method) => methodSchema.parse({...dive, method}));
    expect(kinds.map(isDive)).toEqual([true, false, false]);
    expect(kinds.map(isSplit)).toEqual([false, false, true]);
  });
});

describe('differenceOf', () => {
  it.each([
    [dive, 'each expert keeps 50% of the neurons, the mean of the others is its bias'],
    [{...dive, keep: 0.125}, 'each expert keeps 12.5% of the neurons, the mean of the others is its bias'],
    [{...dive, keep: 1}, null],
    [{...dive, method: 'sparse-upcycle'}, null],
    [{...dive, method: 'drop-upcycle'}, '50% of the neurons of each copy were drawn anew'],
    [{...dive, method: 'random'}, null],
    [{...dive, method: 'all-shared'}, 'neurons were left out'],
  ])('of %j is %s', (method, words) => {
    expect(differenceOf(methodSchema.parse(method))).toBe(words);
  });
});
