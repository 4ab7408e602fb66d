import fc from 'fast-check';
import {describe, expect, test} from 'vitest';
import {editDistance, nearest} from '../../src/util/nearest.js';

const word = fc.string({maxLength: 8});

describe('editDistance', () => {
  test('counts inserted, removed, changed and swapped letters', () => {
    expect(editDistance('steps', 'stpes')).toBe(1);
    expect(editDistance('steps', 'step')).toBe(1);
    expect(editDistance('shared', 'sharred')).toBe(1);
    expect(editDistance('kitten', 'sitting')).toBe(3);
    expect(editDistance('', 'abc')).toBe(3);
  });

  test('is symmetric, zero only for the same word, and at most the longer length', () => {
    fc.assert(
      fc.property(word, word, (a, b) => {
        const distance = editDistance(a, b);
        expect(distance).toBe(editDistance(b, a));
        expect(distance === 0).toBe(a === b);
        expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
        expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
      }),
    );
  });
});

describe('nearest', () => {
  test('finds the word that was meant, whatever its case', () => {
    expect(nearest('topk', ['experts', 'topK'])).toBe('topK');
    expect(nearest('weightdecay', ['weight', 'weightDecay'])).toBe('weightDecay');
  });

  test('does not guess at short or distant words', () => {
    expect(nearest('gpu', ['cpu'])).toBeNull();
    expect(nearest('colours', ['out', 'smoothing'])).toBeNull();
  });
});
