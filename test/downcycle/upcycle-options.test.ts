import {describe, expect, it} from 'vitest';
import {isUpcycle, upcycleSchema} from '../../src/downcycle/upcycle-options.js';

const issuesOf = (input: object): {path: string; message: string}[] => {
  const result = upcycleSchema.safeParse({experts: 8, topK: 2, ...input});
  return (result.error?.issues ?? []).map(({path, message}) => ({path: path.join('.'), message}));
};

describe('upcycleSchema', () => {
  it.each([
    ['sparse-upcycle', {}, {}],
    ['drop-upcycle', {}, {ratio: 0.5}],
    ['noise-upcycle', {}, {noise: 0.05, ratio: 1}],
    ['granular-upcycle', {shards: 4}, {shards: 4}],
  ])('fills in the defaults of %s', (method, given, rest) => {
    const options = upcycleSchema.parse({method, experts: 8, topK: 2, ...given});
    expect(options).toEqual({method, experts: 8, topK: 2, renormalise: true, ...rest});
    expect(upcycleSchema.parse(options)).toEqual(options);
  });

  it.each([
    ['drop-upcycle', 'ratio', 1.5, 'Too big: expected number to be <=1'],
    ['drop-upcycle', 'ratio', -0.1, 'Too small: expected number to be >=0'],
    ['noise-upcycle', 'ratio', 2, 'Too big: expected number to be <=1'],
    ['noise-upcycle', 'noise', -1, 'Too small: expected number to be >=0'],
  ])('%s refuses %s of %d', (method, key, value, message) => {
    expect(issuesOf({method, [key]: value})).toEqual([{path: key, message}]);
  });

  it.each([
    [8, 3, 'are: 6 and 9'],
    [2, 3, 'is: 3'],
  ])('refuses %i experts in %i shards, and offers what is near', (experts, shards, nearest) => {
    const message = `experts (= ${experts}) must be a multiple of shards (= ${shards}); nearest that ${nearest}.`;
    expect(issuesOf({method: 'granular-upcycle', experts, shards})).toEqual([{path: 'experts', message}]);
  });

  it.each(['drop-upcycle', 'noise-upcycle', 'granular-upcycle'])('%s refuses topK above experts', (method) => {
    const shards = method === 'granular-upcycle' ? {shards: 1} : {};
    expect(issuesOf({method, experts: 2, topK: 3, ...shards})).toEqual([
      {path: 'topK', message: 'topK (= 3) must be at most experts (= 2). Lower topK or raise experts.'},
    ]);
  });

  it('refuses settings of other methods', () => {
    expect(issuesOf({method: 'sparse-upcycle', ratio: 0.5})[0]?.message).toBe('Unrecognized key: "ratio"');
    expect(issuesOf({method: 'drop-upcycle', noise: 0.5})[0]?.message).toBe('Unrecognized key: "noise"');
  });
});

describe('isUpcycle', () => {
  it('knows the methods that copy from those that split', () => {
    const methods = ['sparse-upcycle', 'drop-upcycle', 'noise-upcycle', 'granular-upcycle'];
    for (const method of methods) expect(isUpcycle({method})).toBe(true);
    for (const method of ['expertweaver', 'random', 'contiguous', 'toString']) expect(isUpcycle({method})).toBe(false);
  });
});
