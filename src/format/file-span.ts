// Bytes of a file that others made: opened with errors that say what to do, read piece by piece, never trusted for their length.
import {type FileHandle, open} from 'node:fs/promises';
import {EnvironmentError, ModelError, systemCode} from '../util/errors.js';

/** Bytes [begin, end). */
export interface ByteRange {
  readonly begin: number;
  readonly end: number;
}

/** One read call takes at most 2^31 - 1 bytes. */
const MAX_READ_BYTES = 2 ** 30;

/** Opens a file of weights. @throws ModelError if there is none; EnvironmentError if it may not be read. */
export async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (cause) {
    switch (systemCode(cause)) {
      case 'ENOENT':
      case 'ENOTDIR':
        throw new ModelError(`${path}: there is no such file.`, {cause});
      case 'EACCES':
      case 'EPERM':
        throw new EnvironmentError(`${path}: not allowed to read it.`, {hint: 'Check the rights of the file.', cause});
      default:
        throw cause;
    }
  }
}

/**
 * Bytes of a file, in memory of their own.
 *
 * @param what the part of the file that they are, for messages.
 * @throws ModelError if the file has become shorter; EnvironmentError if there is no memory for them.
 */
export async function readSpan(
  file: FileHandle,
  {begin, end}: ByteRange,
  path: string,
  what: string,
): Promise<Uint8Array> {
  const bytes = allocate(end - begin, path, what);
  for (let done = 0; done < bytes.length; ) {
    const part = bytes.subarray(done, done + MAX_READ_BYTES);
    const {bytesRead} = await file.read(part, 0, part.length, begin + done);
    if (bytesRead === 0) throw new ModelError(`${path}: the file ends inside ${what}; it was cut after it was opened.`);
    done += bytesRead;
  }
  return bytes;
}

/** Memory for a part of a file. @throws EnvironmentError if there is none. */
export function allocate(size: number, path: string, what: string): Uint8Array {
  try {
    return new Uint8Array(size);
  } catch (cause) {
    throw new EnvironmentError(`${path}: ${what} needs ${size} bytes of memory in one piece, which Node cannot give.`, {
      hint: 'Read it by rows, or free some memory.',
      cause,
    });
  }
}
