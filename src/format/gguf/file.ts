import {type FileHandle, open} from 'node:fs/promises';
import {ModelError} from '../../util/errors.js';
import {type ByteRange, openForReading, readSpan} from '../file-span.js';
import {MoreNeeded} from './cursor.js';
import {type GgufHeader, MAGIC, parseGgufHeader} from './header.js';

/** An open GGUF file. Reads may run at the same time; `close` ends it. */
export interface GgufFile extends GgufHeader {
  readonly path: string;
  /** Bytes counted from the start of the file, which are a part of `what`. */
  read(range: ByteRange, what: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Most heads take one to ten million bytes, nearly all for the vocabulary. */
const FIRST_BYTES = 2 ** 21;
/** A longer head is taken for damage before anything is allocated. */
const MAX_HEADER_BYTES = 2 ** 28;

/**
 * Opens a GGUF file and checks its head against its size; tensors are read later.
 *
 * @throws ModelError naming the file, and the tensor or key where there is one, if it is missing, truncated, damaged or
 * packed in a way that is not read; EnvironmentError if it may not be read.
 */
export async function openGguf(path: string): Promise<GgufFile> {
  const file = await openForReading(path);
  try {
    const header = await readHeader(file, path);
    return {path, ...header, read: (range, what) => readSpan(file, range, path, what), close: () => file.close()};
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Whether a file begins as GGUF does, whole or damaged; false if it cannot be read. */
export async function beginsAsGguf(path: string): Promise<boolean> {
  const file = await open(path, 'r').catch(() => null);
  if (!file) return false;
  try {
    const {buffer} = await file.read(Buffer.alloc(MAGIC.length), 0, MAGIC.length, 0);
    return buffer.toString('latin1') === MAGIC;
  } finally {
    await file.close();
  }
}

/** Only the length of the file is known before its head is read: takes more of it until the head is whole. */
async function readHeader(file: FileHandle, path: string): Promise<GgufHeader> {
  const {size} = await file.stat();
  let length = Math.min(size, FIRST_BYTES);
  for (;;) {
    const bytes = await readSpan(file, {begin: 0, end: length}, path, 'the head');
    try {
      return parseGgufHeader(bytes, path, size);
    } catch (error) {
      if (!(error instanceof MoreNeeded)) throw error;
      if (error.needed > MAX_HEADER_BYTES) {
        throw new ModelError(
          `${path}: the head claims ${error.needed} bytes or more; the limit is ${MAX_HEADER_BYTES}.`,
        );
      }
      length = Math.min(size, MAX_HEADER_BYTES, Math.max(error.needed, 4 * length));
    }
  }
}
