import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {createPacker, documentIds} from '../../src/data/pack.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {ModelError} from '../../src/util/errors.js';
import {BYTE_LEVEL, STORIES} from './support.js';

const documents = fc.array(fc.array(fc.nat(99), {minLength: 1, maxLength: 30}), {minLength: 1, maxLength: 20});
const lengths = fc.integer({min: 1, max: 12});

function pack(input: readonly number[][], sequenceLength: number, boundaries: 'keep' | 'ignore') {
  const packer = createPacker({sequenceLength, boundaries});
  const rows: ShardRows[] = input.flatMap((ids) => packer.add(Int32Array.from(ids)));
  return {rows, pending: packer.pending()};
}

describe('packed rows', () => {
  it('predict every token but the first exactly once, in order', () => {
    fc.assert(
      fc.property(documents, lengths, (input, sequenceLength) => {
        const {rows} = pack(input, sequenceLength, 'ignore');
        const predicted = rows.flatMap(({tokens}) => [...tokens.subarray(1)]);
        expect(predicted).toEqual(input.flat().slice(1, 1 + predicted.length));
      }),
    );
  });

  it('have sequenceLength + 1 tokens and begin with the last token of the row before', () => {
    fc.assert(
      fc.property(documents, lengths, (input, sequenceLength) => {
        const {rows} = pack(input, sequenceLength, 'ignore');
        for (const [i, {tokens}] of rows.entries()) {
          expect(tokens.length).toBe(sequenceLength + 1);
          if (i > 0) expect(tokens[0]).toBe(rows[i - 1]?.tokens.at(-1));
        }
      }),
    );
  });

  it('leave less than a row over', () => {
    fc.assert(
      fc.property(documents, lengths, (input, sequenceLength) => {
        const {rows, pending} = pack(input, sequenceLength, 'ignore');
        expect(pending).toBeLessThanOrEqual(sequenceLength);
        expect(rows.length * sequenceLength + pending).toBe(input.flat().length);
      }),
    );
  });

  it('hold the same tokens whether boundaries are kept or not, with segments only if they are', () => {
    fc.assert(
      fc.property(documents, lengths, (input, sequenceLength) => {
        const kept = pack(input, sequenceLength, 'keep').rows;
        const ignored = pack(input, sequenceLength, 'ignore').rows;
        expect(kept.map(({tokens}) => tokens)).toEqual(ignored.map(({tokens}) => tokens));
        expect(ignored.every((row) => row.segments === undefined)).toBe(true);
      }),
    );
  });

  it('count the documents of a row from 0 in their segments', () => {
    fc.assert(
      fc.property(documents, lengths, (input, sequenceLength) => {
        const owner = input.flatMap((ids, document) => ids.map(() => document));
        for (const [i, {segments = []}] of pack(input, sequenceLength, 'keep').rows.entries()) {
          const owners = owner.slice(i * sequenceLength, (i + 1) * sequenceLength + 1);
          expect([...segments]).toEqual(owners.map((document) => document - (owners[0] ?? 0)));
        }
      }),
    );
  });
});

describe('masked rows', () => {
  /** Documents of [token, learnt]. */
  const masked = fc.array(fc.array(fc.tuple(fc.nat(99), fc.integer({min: 0, max: 1})), {minLength: 1, maxLength: 30}), {
    minLength: 1,
    maxLength: 20,
  });

  it('learn what is learnt of every document, each once, and only that', () => {
    fc.assert(
      fc.property(masked, lengths, fc.constantFrom('keep' as const, 'ignore' as const), (input, S, boundaries) => {
        const packer = createPacker({sequenceLength: S, boundaries, masked: true});
        const column = (document: [number, number][], i: 0 | 1) => Int32Array.from(document, (pair) => pair[i]);
        const rows = input.flatMap((document) => packer.add(column(document, 0), column(document, 1)));
        const isLearnt = ({mask, segments}: ShardRows, i: number): boolean =>
          mask?.[i] === 1 && segments?.[i] === segments?.[i - 1];
        const learnt = rows.flatMap((row) => [...row.tokens].filter((_, i) => i > 0 && isLearnt(row, i)));
        const packed = input.flat().slice(0, input.flat().length - packer.pending() + 1);
        const opening = new Set(input.map((_, i) => input.slice(0, i).flat().length));
        const wanted = packed.filter(
          ([, isOn], i) => i > 0 && isOn === 1 && !(boundaries === 'keep' && opening.has(i)),
        );
        expect(learnt).toEqual(wanted.map(([token]) => token));
        for (const row of rows) expect([...row.tokens.keys()].some((i) => i > 0 && isLearnt(row, i))).toBe(true);
        expect((rows.length + packer.leftOut()) * S + packer.pending()).toBe(input.flat().length);
      }),
    );
  });

  it('take the mask of the token they begin with along', () => {
    const packer = createPacker({sequenceLength: 2, boundaries: 'keep', masked: true});
    const rows = packer.add(Int32Array.of(1, 2, 3, 4, 5), Int32Array.of(0, 0, 1, 0, 1));
    expect(rows.map(({mask}) => [...(mask ?? [])])).toEqual([
      [0, 0, 1],
      [1, 0, 1],
    ]);
  });
});

describe('the ids of a document', () => {
  it('end with the end token and begin with the begin token where the tokenizer puts it', async () => {
    const tokenizer = await loadTokenizer(STORIES);
    expect([...documentIds(tokenizer, 'Once')]).toEqual([1, ...tokenizer.encode('Once', {addSpecial: false}), 2]);
  });

  it('have no begin token where the tokenizer puts none', async () => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    expect([...documentIds(tokenizer, 'it')]).toEqual([...tokenizer.encode('it'), 2]);
  });

  it('hold special tokens of the text only if these are recognised', async () => {
    const tokenizer = await loadTokenizer(BYTE_LEVEL);
    expect(documentIds(tokenizer, 'a<|im_end|>b')).toContain(2);
    expect([...documentIds(tokenizer, 'a<|im_end|>b', 'text')].indexOf(2)).toBe(
      documentIds(tokenizer, 'a<|im_end|>b', 'text').length - 1,
    );
  });

  it('cannot be made without an end token', async () => {
    const tokenizer = {...(await loadTokenizer(STORIES)), eosId: null};
    expect(() => documentIds(tokenizer, 'Once')).toThrow(ModelError);
    expect(() => documentIds(tokenizer, 'Once')).toThrow('The tokenizer names no end token');
  });
});
