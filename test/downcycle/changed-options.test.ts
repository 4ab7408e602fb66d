import {expect, it} from 'vitest';
import {changedOptions} from '../../src/downcycle/changed-options.js';
import {methodSchema} from '../../src/downcycle/options.js';

const counts = {experts: 6, topK: 2};

it.each([
  ['a split as it comes', {method: 'random', ...counts}, {shared: 0}],
  ['what weave has by itself', {method: 'weave', shared: 2, ...counts}, {shared: 2}],
  ['what it has not', {method: 'weave', ...counts, repair: 'none', weights: 'one'}, {shared: 0, repair: 'none'}],
  ['an allocation', {method: 'cmoe', ...counts, allocation: 'sensitivity'}, {shared: 0, allocation: 'sensitivity'}],
  [
    'what an allocation brings with it',
    {method: 'expertweaver', ...counts, allocation: 'adaptive', alphaMin: 0.25, assignment: 'greedy'},
    {shared: 0, allocation: 'adaptive', alphaMin: 0.25, assignment: 'greedy'},
  ],
  ['copies', {method: 'sparse-upcycle', ...counts, from: 'dense'}, {from: 'dense'}],
  ['a share that is kept', {method: 'dive', ...counts, keep: 0.25}, {keep: 0.25}],
  ['shards, which have no default', {method: 'granular-upcycle', ...counts, shards: 3}, {shards: 3}],
])('%s', (_, input, changed) => {
  expect(changedOptions(methodSchema.parse(input))).toEqual({...counts, ...changed});
});
