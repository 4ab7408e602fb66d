import {expect, it} from 'vitest';
import {rowNames} from '../../src/eval/row-names.js';

it('files are called by their names without folder and ending, but whole where two would be called the same', () => {
  expect(rowNames(['a/x.txt', 'b/y.test.jsonl'])).toEqual(['x', 'y.test']);
  expect(rowNames(['a/x.txt', 'y.txt', 'b/x.jsonl'])).toEqual(['a/x.txt', 'y', 'b/x.jsonl']);
  expect(rowNames(['texts/all.txt', 'y.txt'], ['all'])).toEqual(['texts/all.txt', 'y']);
});
