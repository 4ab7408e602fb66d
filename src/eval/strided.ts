// Perplexity of texts over windows that overlap, so that tokens are foretold from what stands before them.
import {taskOf} from '../data/record.js';
import {readDocuments, readRecords} from '../data/source.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError} from '../util/errors.js';
import {joinInts} from '../util/join.js';
import type {Sequence} from './sequence-losses.js';

/** A text as one row of tokens. */
export interface StridedText {
  readonly name: string;
  readonly tokens: Int32Array;
  /** UTF-8 bytes of all but its first token. */
  readonly bytes: number;
}

/** How much of a text is read, and how it is parted. */
export interface StridedOptions {
  /** Field of its records that names rows; default: a file is a row. */
  readonly by?: string | undefined;
  /** Tokens of a row at most; default all. */
  readonly tokens?: number | undefined;
  /** What the file is called; default its path. */
  readonly name?: string | undefined;
}

/** How well a text is foretold. */
export interface TextScore {
  readonly name: string;
  /** Tokens that were foretold, and their UTF-8 bytes. */
  readonly tokens: number;
  readonly bytes: number;
  readonly windows: number;
  /** Nats a token. */
  readonly loss: number;
  readonly perplexity: number;
  readonly bitsPerByte: number;
  readonly bytePerplexity: number;
}

/**
 * The texts of a file, whose documents follow each other as they are: one, or one for each value of a field of its records.
 *
 * @throws DataError if there is no text, or a record without that field.
 */
export async function readStrided(
  path: string,
  tokenizer: Tokenizer,
  {by, tokens = Number.POSITIVE_INFINITY, name: file = path}: StridedOptions = {},
): Promise<StridedText[]> {
  const source = {name: file, path};
  const rows = new Map<string, Row>();
  const add = (name: string, text: string): boolean => {
    const row = rows.get(name) ?? emptyRow(tokenizer);
    rows.set(name, row);
    extend(row, text, tokenizer, tokens);
    return row.count >= tokens;
  };
  if (by === undefined) {
    for await (const text of readDocuments(source)) if (add(file, text)) break;
  } else {
    for await (const record of readRecords(source, by)) add(`${file} ${taskOf(record, by, BY_HINT)}`, record.text);
    if (rows.size === 0)
      throw new DataError(`${path} holds no records that could have a field ${by}.`, {hint: BY_HINT});
  }
  return [...rows].map(([name, row]) => rowText(name, row, tokenizer));
}

const BY_HINT = 'Name a field with --by that every record of the text has, or leave --by out.';

/** What was read of a text. */
interface Row {
  readonly parts: Int32Array[];
  count: number;
  bytes: number;
}

/** A text begins with the begin token where the tokenizer puts one. */
function emptyRow({addsBos, bosId}: Tokenizer): Row {
  return addsBos && bosId !== null
    ? {parts: [Int32Array.of(bosId)], count: 1, bytes: 0}
    : {parts: [], count: 0, bytes: 0};
}

function extend(row: Row, text: string, tokenizer: Tokenizer, most: number): void {
  if (row.count >= most) return;
  const ids = tokenizer.encode(text, {addSpecial: false});
  const kept = ids.subarray(0, most - row.count);
  row.parts.push(kept);
  row.count += kept.length;
  row.bytes += kept.length === ids.length ? Buffer.byteLength(text) : bytesOf(tokenizer, kept);
}

/** Its first token is foretold by nothing, so its bytes do not count. */
function rowText(name: string, {parts, bytes}: Row, tokenizer: Tokenizer): StridedText {
  const tokens = joinInts(parts);
  return {name, tokens, bytes: bytes - bytesOf(tokenizer, tokens.subarray(0, 1))};
}

/** Bytes of what tokens say; a letter that is cut at their end does not count. */
function bytesOf(tokenizer: Tokenizer, tokens: Int32Array): number {
  return Buffer.byteLength(tokenizer.decode(tokens, {skipSpecial: true}).replace(/\uFFFD+$/, ''));
}

/**
 * Windows of a text, each `stride` tokens behind the one before, in which every token but the first of the text counts
 * once: with `window − stride` tokens before it at least, fewer only at the beginning.
 *
 * @throws DataError if the text has fewer than two tokens.
 */
export function windowsOf({name, tokens}: StridedText, window: number, stride: number): Sequence[] {
  if (tokens.length < 2) {
    throw new DataError(`Of text ${name} ${tokens.length} tokens are read, of which none can be foretold.`, {
      hint: 'Give a longer text, or raise --tokens.',
    });
  }
  const windows: Sequence[] = [];
  let counted = 1; // the first token that no window has foretold
  for (let begin = 0; counted < tokens.length; begin += stride) {
    const end = Math.min(begin + window + 1, tokens.length); // its last token is foretold, and not read
    windows.push({tokens: tokens.subarray(begin, end), from: counted - begin});
    counted = end;
  }
  return windows;
}

/** What the losses of its windows say of a text. */
export function textScore({name, tokens, bytes}: StridedText, losses: Float64Array): TextScore {
  const sum = losses.reduce((total, loss) => total + loss, 0);
  return {name, ...scoreOf(sum, {tokens: tokens.length - 1, bytes, windows: losses.length})};
}

/** What texts are called that count as one. */
export const WHOLE = 'all';

/** What texts score as one, each by its tokens and bytes. */
export function wholeScore(scores: readonly TextScore[]): TextScore {
  const sum = (of: (score: TextScore) => number): number => scores.reduce((total, score) => total + of(score), 0);
  const count = {
    tokens: sum(({tokens}) => tokens),
    bytes: sum(({bytes}) => bytes),
    windows: sum(({windows}) => windows),
  };
  return {
    name: WHOLE,
    ...scoreOf(
      sum(({loss, tokens}) => loss * tokens),
      count,
    ),
  };
}

/** @param sum of the losses of all tokens, in nats. */
function scoreOf(sum: number, count: Pick<TextScore, 'tokens' | 'bytes' | 'windows'>): Omit<TextScore, 'name'> {
  const loss = sum / count.tokens;
  const bitsPerByte = sum / Math.LN2 / count.bytes;
  return {...count, loss, perplexity: Math.exp(loss), bitsPerByte, bytePerplexity: 2 ** bitsPerByte};
}
