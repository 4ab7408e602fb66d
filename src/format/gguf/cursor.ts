// Reads numbers and texts of a GGUF head one after the other. No length is believed before the bytes are there.
import {ModelError} from '../../util/errors.js';

/** A place in the first bytes of a file. */
export interface Cursor {
  readonly path: string;
  /** The first bytes of the file, as many as were read. */
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Bytes of the whole file. */
  readonly size: number;
  at: number;
  /** What is being read, for messages. */
  what: string;
}

/** More of the file has to be read to go on: as many of its first bytes as `needed`. */
export class MoreNeeded extends Error {
  constructor(readonly needed: number) {
    super(`the first ${needed} bytes are needed`);
  }
}

/** A cursor at the beginning of a file. */
export function createCursor(bytes: Uint8Array, path: string, size: number): Cursor {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {path, bytes, view, size, at: 0, what: 'the head'};
}

/**
 * Steps over bytes and says where they began.
 *
 * @throws ModelError if the file has not so many; {@link MoreNeeded} if it has, and they were not read.
 */
export function skip(cursor: Cursor, count: number): number {
  const {at, size, path, what, bytes} = cursor;
  const end = at + count;
  if (!(end <= size)) {
    throw new ModelError(
      `${path}: the file ends inside ${what}, at byte ${size} of ${end}; it is truncated or damaged.`,
    );
  }
  if (end > bytes.length) throw new MoreNeeded(end);
  cursor.at = end;
  return at;
}

/** An unsigned number of 32 bits. */
export function readU32(cursor: Cursor): number {
  return cursor.view.getUint32(skip(cursor, 4), true);
}

/** An unsigned number of 64 bits; above 2^53 it is not exact, and larger than anything that it may be. */
export function readU64(cursor: Cursor): number {
  return Number(cursor.view.getBigUint64(skip(cursor, 8), true));
}

/** A text: its length, then UTF-8. @throws ModelError if it is none, or longer than `most` bytes. */
export function readText(cursor: Cursor, most: number): string {
  const length = readU64(cursor);
  if (length > most) {
    throw new ModelError(`${cursor.path}: ${cursor.what} claims a text of ${length} bytes; the limit is ${most}.`);
  }
  const begin = skip(cursor, length);
  try {
    return UTF8.decode(cursor.bytes.subarray(begin, begin + length));
  } catch (cause) {
    throw new ModelError(`${cursor.path}: ${cursor.what} has a text that is not UTF-8.`, {cause});
  }
}

const UTF8 = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});
