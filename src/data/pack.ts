import type {ShardRows} from '../format/token-shard-rows.js';
import type {EncodeOptions, Tokenizer} from '../tokenizer/tokenizer.js';
import {ModelError} from '../util/errors.js';
import {hasLabel} from './labels.js';

export interface PackOptions {
  readonly sequenceLength: number;
  readonly boundaries: 'keep' | 'ignore';
  /** Whether documents come with a mask of what is learnt; default no. */
  readonly masked?: boolean;
}

/** Fills rows with documents, one after the other, without padding. */
export interface Packer {
  /**
   * Takes the ids of one document and returns the rows that became full, less those in which nothing is learnt.
   *
   * @param mask 1 where a token is learnt; of as many values as ids if documents are masked.
   */
  add(ids: Int32Array, mask?: Int32Array): ShardRows[];
  /** Tokens in the row begun last; they are not in any row returned. */
  pending(): number;
  /** Full rows that were left out since nothing in them is learnt. */
  leftOut(): number;
}

/**
 * A packer of rows of sequenceLength + 1 tokens.
 *
 * A row begins with the last token of the row before it, so that every token but the very first is predicted exactly
 * once. With boundaries kept, `segments` counts the documents of a row from 0; a document's end token is its own.
 */
export function createPacker({sequenceLength, boundaries, masked = false}: PackOptions): Packer {
  const width = sequenceLength + 1;
  const newRow = () => ({
    tokens: new Int32Array(width),
    ...(boundaries === 'keep' && {segments: new Int32Array(width)}),
    ...(masked && {mask: new Int32Array(width)}),
  });
  let row: ShardRows = newRow();
  let filled = 0;
  let segment = -1;
  let leftOut = 0;

  const turnOver = (): ShardRows => {
    const full = row;
    row = newRow();
    row.tokens[0] = full.tokens[sequenceLength] ?? 0;
    if (row.mask) row.mask[0] = full.mask?.[sequenceLength] ?? 0;
    filled = 1;
    segment = 0;
    return full;
  };
  return {
    add: (ids, mask) => {
      const rows: ShardRows[] = [];
      segment++;
      for (let at = 0; at < ids.length; ) {
        const taken = ids.subarray(at, at + width - filled);
        row.tokens.set(taken, filled);
        row.segments?.fill(segment, filled, filled + taken.length);
        if (mask) row.mask?.set(mask.subarray(at, at + taken.length), filled);
        filled += taken.length;
        at += taken.length;
        if (filled < width) continue;
        const full = turnOver();
        if (hasLabel(full)) rows.push(full);
        else leftOut++;
      }
      return rows;
    },
    pending: () => filled,
    leftOut: () => leftOut,
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
