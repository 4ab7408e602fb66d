import {writeFile} from 'node:fs/promises';
import * as fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {measurePerplexity} from '../../src/eval/perplexity.js';
import {sequenceLosses} from '../../src/eval/sequence-losses.js';
import {readStrided, type StridedText, textScore, wholeScore, windowsOf} from '../../src/eval/strided.js';
import {openModelFolder} from '../../src/format/model-folder.js';
import {readArchitecture} from '../../src/model/read-architecture.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {createRng} from '../../src/util/rng.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {onEngine} from '../support/engines.js';
import {TEXT} from '../train/support.js';

const scratch = useScratch();
const tokenizer = await loadTokenizer('checkpoints/dense-2m');
const rng = createRng(3, 'tokens');
const textOf = (length: number): StridedText => ({
  name: 'a',
  tokens: Int32Array.from({length}, () => rng.int(32)),
  bytes: length,
});

describe('windowsOf', () => {
  it('foretells every token but the first once, with window − stride tokens before it', () => {
    const sizes = fc.tuple(fc.integer({min: 2, max: 90}), fc.integer({min: 1, max: 20}), fc.integer({min: 1, max: 20}));
    fc.assert(
      fc.property(sizes, ([length, window, step]) => {
        const stride = Math.min(step, window);
        const tokens = Int32Array.from({length}, (_, i) => i); // each token says where it stands
        const foretold: number[] = [];
        for (const one of windowsOf({name: 'a', tokens, bytes: length}, window, stride)) {
          expect(one.tokens.length).toBeLessThanOrEqual(window + 1);
          for (let t = one.from; t < one.tokens.length; t++) {
            const token = one.tokens[t]!;
            foretold.push(token);
            expect(t).toBeGreaterThanOrEqual(Math.min(token, Math.max(1, window - stride)));
          }
        }
        expect(foretold).toEqual([...tokens.subarray(1)]);
      }),
    );
  });

  it('refuses a text of which nothing can be foretold', () => {
    expect(() => windowsOf(textOf(1), 8, 4)).toThrow('Of text a 1 tokens are read, of which none can be foretold.');
  });

  onEngine('wasm', 'side by side give what windows give, but for the tokens at their borders', async () => {
    const S = 12;
    const text = textOf(4 * S);
    const windows = windowsOf(text, S, S);
    const inner = windows.map(({tokens}) => ({tokens: tokens.subarray(0, S), from: 1}));
    const folder = await openModelFolder(TINY_LLAMA);
    const architecture = await readArchitecture(TINY_LLAMA);
    const losses = await sequenceLosses(folder, architecture, [...windows, ...inner]);
    const borders = windows.filter(({tokens}) => tokens.length > S).map(({tokens}) => ({tokens, from: S}));
    const atBorders = await sequenceLosses(folder, architecture, borders);
    await folder.close();
    const [known] = await measurePerplexity(TINY_LLAMA, [text], S);
    const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);
    const expected = Math.log(known!.perplexity) * known!.tokens;
    expect(sum(losses.subarray(4))).toBeCloseTo(expected, 3);
    expect(sum(losses.subarray(0, 4)) - sum(atBorders)).toBeCloseTo(expected, 3);
  });
});

describe('textScore', () => {
  it('has bits and perplexity of bytes by hand', () => {
    const text = {name: 'a', tokens: Int32Array.of(1, 2, 3, 4, 5), bytes: 16};
    const score = textScore(text, Float64Array.of(3 * Math.LN2, 5 * Math.LN2));
    expect(score).toMatchObject({tokens: 4, bytes: 16, windows: 2, bitsPerByte: 0.5});
    expect(score.loss).toBeCloseTo(2 * Math.LN2, 12);
    expect(score.perplexity).toBeCloseTo(4, 12);
    expect(score.bytePerplexity).toBeCloseTo(Math.SQRT2, 12);
  });
});

it('wholeScore is the score of the texts as one', () => {
  const text = (size: number, bytes: number) => ({name: 'a', tokens: new Int32Array(size), bytes});
  const scores = [textScore(text(5, 16), Float64Array.of(3, 5)), textScore(text(2, 4), Float64Array.of(9))];
  const {name, ...whole} = textScore(text(6, 20), Float64Array.of(3, 5, 9));
  expect(name).toBe('a');
  expect(wholeScore(scores)).toEqual({...whole, name: 'all'});
});

describe('readStrided', () => {
  async function records(...all: readonly object[]): Promise<string> {
    await writeFile(scratch('mixed.jsonl'), all.map((one) => `${JSON.stringify(one)}\n`).join(''));
    return scratch('mixed.jsonl');
  }

  it('counts the bytes of all but the first token', async () => {
    await writeFile(scratch('a.txt'), 'The sün');
    const [text] = await readStrided(scratch('a.txt'), tokenizer, {name: 'a'});
    expect(tokenizer.decode(text!.tokens)).toBe('The sün');
    expect(text).toMatchObject({name: 'a', bytes: 8 - tokenizer.decode(text!.tokens.subarray(0, 1)).length});
  });

  it('leaves out a letter whose tokens are cut apart', async () => {
    await writeFile(scratch('a.txt'), 'The 𝄞');
    const [whole] = await readStrided(scratch('a.txt'), tokenizer);
    const [cut] = await readStrided(scratch('a.txt'), tokenizer, {tokens: whole!.tokens.length - 1});
    expect(tokenizer.decode(cut!.tokens)).toContain('\uFFFD');
    expect(whole!.bytes - cut!.bytes).toBe(4);
  });

  it('begins with the begin token where the tokenizer puts one, and foretells all bytes', async () => {
    await writeFile(scratch('a.txt'), 'Once upon a time');
    const other = await loadTokenizer('test/fixtures/tokenizer/stories260k');
    const [text] = await readStrided(scratch('a.txt'), other);
    expect(text!.tokens[0]).toBe(other.bosId);
    expect(text!.bytes).toBe(16);
  });

  it('takes as many tokens as it is told, and their bytes', async () => {
    const [text] = await readStrided(TEXT, tokenizer, {tokens: 50});
    expect(text!.tokens.length).toBe(50);
    expect(text!.bytes).toBe(Buffer.byteLength(tokenizer.decode(text!.tokens.subarray(1))));
  });

  it('has a row for each value of a field', async () => {
    const path = await records({text: 'one', domain: 'a'}, {text: 'two', domain: 'b'}, {text: ' three', domain: 'a'});
    const texts = await readStrided(path, tokenizer, {by: 'domain', name: 'mixed'});
    expect(texts.map(({name, tokens}) => [name, tokenizer.decode(tokens)])).toEqual([
      ['mixed a', 'one three'],
      ['mixed b', 'two'],
    ]);
  });

  it('refuses records without that field, files without records and files without text', async () => {
    const path = await records({text: 'one', domain: 'a'}, {text: 'two'});
    await expect(readStrided(path, tokenizer, {by: 'domain'})).rejects.toThrow('mixed.jsonl:2: no field `domain`');
    await expect(readStrided(TEXT, tokenizer, {by: 'domain'})).rejects.toThrow('holds no records');
    await writeFile(scratch('empty.txt'), '');
    await expect(readStrided(scratch('empty.txt'), tokenizer)).rejects.toThrow('empty.txt holds no text.');
  });
});
