// The keys and values at the head of a GGUF file.
import {ModelError} from '../../util/errors.js';
import {type Cursor, createCursor, readText, readU32, readU64, skip} from './cursor.js';

/** A list of a file, decoded when it is asked for: vocabularies are long, and most who open a model need none. */
export interface MetadataList {
  readonly count: number;
  /** @throws ModelError if it is not a list of texts, or one is not UTF-8. */
  texts(): string[];
  /** @throws ModelError if it is not a list of numbers. */
  numbers(): number[];
}

/** What a key says. */
export type MetadataValue = string | number | boolean | MetadataList;

/** Keys and what they say. */
export type Metadata = ReadonlyMap<string, MetadataValue>;

/** No file has had more than a few dozen; more are a damaged head. */
const MAX_KEYS = 100_000;
/** What the format allows a key. */
const MAX_KEY_BYTES = 65_535;
/** The longest texts are chat templates, of some ten thousand bytes. */
const MAX_TEXT_BYTES = 16_000_000;
const TEXT = 8;
const LIST = 9;
/** Bytes of numbers and truth values by their number in files, and how they are read. */
const SCALARS: Readonly<Record<number, {bytes: number; read: (view: DataView, at: number) => number | boolean}>> = {
  0: {bytes: 1, read: (view, at) => view.getUint8(at)},
  1: {bytes: 1, read: (view, at) => view.getInt8(at)},
  2: {bytes: 2, read: (view, at) => view.getUint16(at, true)},
  3: {bytes: 2, read: (view, at) => view.getInt16(at, true)},
  4: {bytes: 4, read: (view, at) => view.getUint32(at, true)},
  5: {bytes: 4, read: (view, at) => view.getInt32(at, true)},
  6: {bytes: 4, read: (view, at) => shortest(view.getFloat32(at, true))},
  7: {bytes: 1, read: (view, at) => view.getUint8(at) !== 0},
  10: {bytes: 8, read: (view, at) => Number(view.getBigUint64(at, true))},
  11: {bytes: 8, read: (view, at) => Number(view.getBigInt64(at, true))},
  12: {bytes: 8, read: (view, at) => view.getFloat64(at, true)},
};

/** Reads `count` keys and their values. @throws ModelError naming the key, if one stands twice or a value is damaged. */
export function readMetadata(cursor: Cursor, count: number): Metadata {
  if (count > MAX_KEYS) {
    throw new ModelError(`${cursor.path}: the head claims ${count} keys; the limit is ${MAX_KEYS}.`);
  }
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < count; i++) {
    cursor.what = `key ${i + 1} of ${count}`;
    const key = readText(cursor, MAX_KEY_BYTES);
    if (metadata.has(key)) throw new ModelError(`${cursor.path}: key "${key}" stands twice in the head.`);
    cursor.what = `the value of ${key}`;
    metadata.set(key, readValue(cursor, readU32(cursor)));
  }
  return metadata;
}

function readValue(cursor: Cursor, type: number): MetadataValue {
  if (type === TEXT) return readText(cursor, MAX_TEXT_BYTES);
  if (type === LIST) return readList(cursor);
  const scalar = SCALARS[type];
  if (!scalar) throw new ModelError(`${cursor.path}: ${cursor.what} is of type ${type}, which is none of GGUF's.`);
  return scalar.read(cursor.view, skip(cursor, scalar.bytes));
}

/** Steps over a list; what is in it is read later. */
function readList(cursor: Cursor): MetadataList {
  const {path, what, bytes, size} = cursor;
  const type = readU32(cursor);
  const count = readU64(cursor);
  const scalar = SCALARS[type];
  if (type !== TEXT && !scalar) {
    throw new ModelError(
      `${path}: ${what} is a list of type ${type}; lists of numbers, truth values and texts are read.`,
    );
  }
  const begin = skip(cursor, 0);
  if (scalar) skip(cursor, count * scalar.bytes);
  else skipTexts(cursor, count);
  const not = (kind: string): ModelError => new ModelError(`${path}: ${what} is not a list of ${kind}.`);
  return {
    count,
    texts: () => {
      if (scalar) throw not('texts');
      const texts = {...createCursor(bytes, path, size), at: begin, what};
      return Array.from({length: count}, () => readText(texts, MAX_TEXT_BYTES));
    },
    numbers: () => {
      if (!scalar) throw not('numbers');
      const {view} = createCursor(bytes, path, size);
      return Array.from({length: count}, (_, i) => Number(scalar.read(view, begin + i * scalar.bytes)));
    },
  };
}

function skipTexts(cursor: Cursor, count: number): void {
  const {at, size, path, what} = cursor;
  // each takes eight bytes at least: a count that cannot be is told without walking to the end of a large file
  if (count * 8 > size - at)
    throw new ModelError(`${path}: ${what} claims ${count} texts, more than the file can hold.`);
  for (let i = 0; i < count; i++) skip(cursor, readU64(cursor));
}

/** The number of fewest digits that is the same float32: what somebody wrote before it was stored as one. */
function shortest(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === value) return rounded;
  }
  return value;
}
