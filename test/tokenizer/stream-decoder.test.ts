import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {createStreamDecoder} from '../../src/tokenizer/stream-decoder.js';
import {loadTokenizer, type Tokenizer} from '../../src/tokenizer/tokenizer.js';
import {STORIES} from '../data/support.js';

/** What a decoder shows at each id, and at the end. */
function pieces(tokenizer: Tokenizer, ids: ArrayLike<number>, before: ArrayLike<number> = []): string[] {
  const decoder = createStreamDecoder(tokenizer, before);
  return [...Array.from(ids, (id) => decoder.push(id)), decoder.flush()];
}

/** Byte-level, with an id for every byte. */
const SHIPPED = 'checkpoints/dense-4m';

describe.each([SHIPPED, STORIES])('the pieces of a text, %s', (folder) => {
  it('are together what all ids give at once', async () => {
    const tokenizer = await loadTokenizer(folder);
    const text = fc.string({unit: 'grapheme'});
    fc.assert(
      fc.property(text, text, (start, rest) => {
        const [before, ids] = [start, rest].map((one) => tokenizer.encode(one, {special: 'text', addSpecial: false}));
        const whole = (...parts: Int32Array[]): string =>
          tokenizer.decode(
            parts.flatMap((part) => [...part]),
            {skipSpecial: true},
          );
        expect(whole(before!) + pieces(tokenizer, ids!, before!).join('')).toBe(whole(before!, ids!));
      }),
      {numRuns: 50},
    );
  });

  it('are whole characters', async () => {
    const tokenizer = await loadTokenizer(folder);
    const ids = tokenizer.encode('a\u{1F600}é', {addSpecial: false});
    const shown = pieces(tokenizer, ids);
    expect(shown.length).toBeGreaterThan(4); // some ids are bytes of a character
    expect(shown.join('').trimStart()).toBe('a\u{1F600}é');
    for (const piece of shown) expect(piece).not.toContain('\uFFFD');
  });

  it('end with what never became a character', async () => {
    const tokenizer = await loadTokenizer(folder);
    const ids = tokenizer.encode('a\u{1F600}', {addSpecial: false}).slice(0, -1);
    const shown = pieces(tokenizer, ids);
    expect(shown.at(-1)).toMatch(/^\uFFFD+$/);
    expect(shown.slice(0, -1).join('').trimStart()).toBe('a');
  });
});

it('words keep the space before them after a prompt, and special tokens are left out', async () => {
  const tokenizer = await loadTokenizer(STORIES);
  const before = tokenizer.encode('Once upon');
  const ids = tokenizer.encode('Once upon a time').slice(before.length);
  expect(pieces(tokenizer, [...ids, tokenizer.eosId!], before).join('')).toBe(' a time');
});
