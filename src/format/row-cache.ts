// A file of equally long rows that are written one by one, in any order: results worth keeping between runs.
import {type FileHandle, mkdir, open, rename, rm} from 'node:fs/promises';
import {dirname} from 'node:path';
import {crc32} from 'node:zlib';
import {asEnvironmentError} from '../util/atomic.js';
import {ModelError} from '../util/errors.js';
import {openSafetensors} from './safetensors.js';
import {renderHeader, type TensorInfo, type TensorSpec} from './safetensors-header.js';

/** An open row cache; whoever opened it closes it. */
export interface RowCache {
  /** The numbers of a row; null if nobody has written it yet. */
  read(row: number): Promise<Float32Array | null>;
  /** Keeps the numbers of a row. */
  write(row: number, values: Float32Array): Promise<void>;
  close(): Promise<void>;
}

/**
 * Opens a cache of `rows` rows of `width` numbers, or makes an empty one; one of other shape is replaced.
 *
 * The file is safetensors: `rows` float32 [rows, width], and `check` int32 [rows], the CRC-32 of a row's bytes with its
 * lowest bit set, zero before there are any: half of a row, of a process that was killed or a disk that was full, is none.
 * It takes no more of the disk than was written.
 * @throws EnvironmentError if it cannot be read or written.
 */
export async function openRowCache(path: string, rows: number, width: number): Promise<RowCache> {
  const specs: TensorSpec[] = [
    {name: 'rows', dtype: 'F32', shape: [rows, width]},
    {name: 'check', dtype: 'I32', shape: [rows]},
  ];
  const header = renderHeader(specs, {});
  if (!(await fits(path, header.tensors))) await create(path, header);
  const file = await open(path, 'r+');
  const begin = (name: string): number => header.tensors.get(name)?.begin ?? 0;
  const [values, checks, bytes] = [begin('rows'), begin('check'), 4 * width];
  return {
    read: async (row) => {
      const [check, read] = [await readAt(file, checks + 4 * row, 4), await readAt(file, values + row * bytes, bytes)];
      const isWhole = check.readInt32LE() === checkOf(read);
      return isWhole ? new Float32Array(read.buffer, read.byteOffset, width) : null;
    },
    write: async (row, numbers) => {
      if (numbers.length !== width) throw new RangeError(`a row of ${width} numbers was given ${numbers.length}`);
      const content = Buffer.from(numbers.buffer, numbers.byteOffset, bytes);
      const check = Buffer.alloc(4);
      check.writeInt32LE(checkOf(content));
      try {
        await writeAt(file, content, values + row * bytes);
        await writeAt(file, check, checks + 4 * row);
      } catch (error) {
        throw asEnvironmentError(error, path);
      }
    },
    close: () => file.close(),
  };
}

/** Never zero, which is what rows have that nobody wrote. */
function checkOf(bytes: Buffer): number {
  return crc32(bytes) | 1;
}

/** Whether the file has just these tensors. */
async function fits(path: string, expected: ReadonlyMap<string, TensorInfo>): Promise<boolean> {
  const found = await openSafetensors(path).catch((error: unknown) => {
    if (error instanceof ModelError) return null; // not there, or no whole file
    throw error;
  });
  await found?.close();
  return found !== null && JSON.stringify([...found.tensors]) === JSON.stringify([...expected]);
}

async function create(path: string, {bytes, tensors}: ReturnType<typeof renderHeader>): Promise<void> {
  const part = `${path}.${process.pid}.part`;
  await mkdir(dirname(path), {recursive: true});
  const file = await open(part, 'w');
  try {
    await file.write(bytes);
    await file.truncate(Math.max(...[...tensors.values()].map(({end}) => end)));
  } catch (error) {
    await rm(part, {force: true});
    throw asEnvironmentError(error, path);
  } finally {
    await file.close();
  }
  await rename(part, path);
}

async function readAt(file: FileHandle, position: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  await file.read(buffer, 0, bytes, position);
  return buffer;
}

/** A write call may take less than it was given. */
async function writeAt(file: FileHandle, content: Buffer, position: number): Promise<void> {
  for (let done = 0; done < content.length; ) {
    const {bytesWritten} = await file.write(content, done, content.length - done, position + done);
    done += bytesWritten;
  }
}
