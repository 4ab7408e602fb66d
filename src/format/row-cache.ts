// A file of equally long rows that are written one by one, in any order: results worth keeping between runs.
import {type FileHandle, mkdir, open, rename, rm} from 'node:fs/promises';
import {dirname} from 'node:path';
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
 * The file is safetensors: `rows` float32 [rows, width], and `known` uint8 [rows], which turns one after a row is whole,
 * so that a killed process leaves no half of a row that anyone would read. It takes no more of the disk than was written.
 */
export async function openRowCache(path: string, rows: number, width: number): Promise<RowCache> {
  const specs: TensorSpec[] = [
    {name: 'rows', dtype: 'F32', shape: [rows, width]},
    {name: 'known', dtype: 'U8', shape: [rows]},
  ];
  const header = renderHeader(specs, {});
  if (!(await fits(path, header.tensors))) await create(path, header);
  const file = await open(path, 'r+');
  const [values, known] = ['rows', 'known'].map((name) => header.tensors.get(name)?.begin ?? 0) as [number, number];
  const bytes = 4 * width;
  return {
    read: async (row) => {
      const isKnown = await readAt(file, known + row, 1);
      if (isKnown[0] !== 1) return null;
      const read = await readAt(file, values + row * bytes, bytes);
      return new Float32Array(read.buffer, read.byteOffset, width);
    },
    write: async (row, numbers) => {
      if (numbers.length !== width) throw new RangeError(`a row of ${width} numbers was given ${numbers.length}`);
      await file.write(new Uint8Array(numbers.buffer, numbers.byteOffset, bytes), 0, bytes, values + row * bytes);
      await file.write(Uint8Array.of(1), 0, 1, known + row);
    },
    close: () => file.close(),
  };
}

/** Whether the file has just these tensors. */
async function fits(path: string, expected: ReadonlyMap<string, TensorInfo>): Promise<boolean> {
  const found = await openSafetensors(path).catch(() => null);
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
    throw error;
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
