import {expect, it} from 'vitest';
import {intendedDifference} from '../../../src/downcycle/upcycle/difference.js';
import {upcycleSchema} from '../../../src/downcycle/upcycle-options.js';

it.each([
  [{method: 'sparse-upcycle'}, null],
  [{method: 'granular-upcycle', shards: 2}, null],
  [{method: 'drop-upcycle'}, '50% of the neurons of each copy were drawn anew'],
  [{method: 'drop-upcycle', ratio: 0.29}, '29% of the neurons of each copy were drawn anew'],
  [{method: 'drop-upcycle', ratio: 0}, null],
  [{method: 'noise-upcycle'}, 'noise of 0.05 standard deviations was added to each copy'],
  [
    {method: 'noise-upcycle', noise: 0.1, ratio: 0.5},
    'noise of 0.1 standard deviations was added to 50% of the neurons of each copy',
  ],
  [{method: 'noise-upcycle', noise: 0}, null],
  [{method: 'noise-upcycle', ratio: 0}, null],
])('%j differs from its parent: %s', (method, words) => {
  expect(intendedDifference(upcycleSchema.parse({experts: 4, topK: 2, ...method}))).toBe(words);
});
