import type {ShardRows} from '../format/token-shard-rows.js';
import type {EncodeOptions, Tokenizer} from '../tokenizer/tokenizer.js';
import {ModelError} from '../util/errors.js';

export interface PackOptions {
  readonly sequenceLength: number;
  readonly boundaries: 'keep' | 'ignore';
}

/** Fills rows with documents, one after the other, without padding. */
export interface Packer {
  /** Takes the ids of one document and returns the rows that became full. */
  add(ids: Int32Array): ShardRows[];
  /** Tokens in the row begun last; they are not in any row returned. */
  pending(): number;
}

/**
 * A packer of rows of sequenceLength + 1 tokens.
 *
 * A row begins with the last token of the row before it, so that every token but the very first is predicted exactly
 * once. With boundaries kept, `segments` counts the documents of a row from 0; a document's end token is its own.
 */
export function createPacker({sequenceLength, boundaries}: PackOptions): Packer {
  let row = new Int32Array(sequenceLength + 1);
  let segments = new Int32Array(sequenceLength + 1);
  let filled = 0;
  let segment = -1;

  const turnOver = (): ShardRows => {
    const full = boundaries === 'keep' ? {tokens: row, segments} : {tokens: row};
    const last = row[sequenceLength] ?? 0;
    row = new Int32Array(sequenceLength + 1);
    segments = new Int32Array(sequenceLength + 1);
    row[0] = last;
    filled = 1;
    segment = 0;
    return full;
  };
  return {
    add: (ids) => {
      const rows: ShardRows[] = [];
      segment++;
      for (let at = 0; at < ids.length; ) {
        const taken = ids.subarray(at, at + row.length - filled);
        row.set(taken, filled);
        segments.fill(segment, filled, filled + taken.length);
        filled += taken.length;
        at += taken.length;
        if (filled === row.length) rows.push(turnOver());
      }
      return rows;
    },
    pending: () => filled,
  };
}

/**
 * The ids of a training document: its begin token if the tokenizer puts one before a text, the text, the end token.
 *
 * @throws ModelError if the tokenizer names no end token, for then documents would run into one another.
 */
export function documentIds(
  tokenizer: Tokenizer,
  text: string,
  special: EncodeOptions['special'] = 'recognised',
): Int32Array {
  const {bosId, eosId, addsBos} = tokenizer;
  if (eosId === null) {
    throw new ModelError('The tokenizer names no end token, which must part documents.', {
      hint: 'Set `eos_token` in tokenizer_config.json.',
    });
  }
  const ids = tokenizer.encode(text, {special, addSpecial: false});
  return Int32Array.from([...(addsBos && bosId !== null ? [bosId] : []), ...ids, eosId]);
}
