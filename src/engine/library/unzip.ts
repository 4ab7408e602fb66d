import {createReadStream} from 'node:fs';
import type {FileHandle} from 'node:fs/promises';
import {PassThrough, pipeline, Readable} from 'node:stream';
import {createInflateRaw} from 'node:zlib';
import {EnvironmentError} from '../../util/errors.js';

/** One file of a ZIP archive. */
export interface ZipEntry {
  readonly name: string;
  /** 0 stored, 8 deflated; others cannot be read. */
  readonly method: number;
  readonly packedSize: number;
  readonly size: number;
  /** Where its local header starts. */
  readonly offset: number;
  readonly isExecutable: boolean;
}

/** An archive open for reading. */
export interface Zip {
  readonly path: string;
  readonly file: FileHandle;
  readonly entries: readonly ZipEntry[];
}

/** Where the directory of an archive lies, and how many entries it has. */
interface Directory {
  readonly offset: number;
  readonly bytes: number;
  readonly count: number;
}

const END = {signature: 0x06054b50, bytes: 22, maxComment: 0xffff} as const;
const END64 = {signature: 0x06064b50, bytes: 56} as const;
const LOCATOR64 = {signature: 0x07064b50, bytes: 20} as const;
const CENTRAL = {signature: 0x02014b50, bytes: 46} as const;
const LOCAL = {signature: 0x04034b50, bytes: 30} as const;
const EXTRA_ZIP64 = 1;
const IN_EXTRA = 0xffffffff;
const STORED = 0;
const DEFLATED = 8;
/** TensorFlow's wheel, of 16,000 files, has 2 MB; more is a broken or hostile archive. */
const MAX_DIRECTORY_BYTES = 64 * 2 ** 20;

/**
 * Reads the directory of a ZIP archive (APPNOTE 6.3.10, with ZIP64).
 *
 * @throws EnvironmentError if the archive is cut short or damaged.
 */
export async function readZip(path: string, file: FileHandle): Promise<Zip> {
  const {size} = await file.stat();
  const tailBytes = Math.min(size, LOCATOR64.bytes + END.bytes + END.maxComment);
  const tail = await readAt(path, file, size - tailBytes, tailBytes);
  const end = findEnd(path, tail);
  const directory = (await readEnd64(path, file, tail, end)) ?? readEnd(tail, end);
  if (directory.bytes > MAX_DIRECTORY_BYTES || directory.offset + directory.bytes > size) {
    throw damaged(path, 'its directory does not fit into the file');
  }
  const bytes = await readAt(path, file, directory.offset, directory.bytes);
  return {path, file, entries: readEntries(path, bytes, directory.count)};
}

/** The unpacked bytes of one entry; whoever reads them checks their length. */
export async function openEntry({path, file}: Zip, {name, method, offset, packedSize}: ZipEntry): Promise<Readable> {
  const local = await readAt(path, file, offset, LOCAL.bytes);
  if (local.readUInt32LE(0) !== LOCAL.signature) throw damaged(path, `${name} has no header`);
  if (method !== STORED && method !== DEFLATED) throw damaged(path, `${name} is packed by unknown method ${method}`);
  if (packedSize === 0) return Readable.from([]);
  const start = offset + LOCAL.bytes + local.readUInt16LE(26) + local.readUInt16LE(28);
  const packed = createReadStream(path, {start, end: start + packedSize - 1, highWaterMark: 2 ** 18});
  const unpack = method === DEFLATED ? createInflateRaw({chunkSize: 2 ** 18}) : new PassThrough();
  return pipeline(packed, unpack, () => {}); // an error of either ends the stream that is returned
}

/** The error of an archive that cannot be trusted. */
export function damaged(path: string, what: string): EnvironmentError {
  return new EnvironmentError(`${path} is damaged: ${what}.`, {hint: 'It was removed; try again to download it anew.'});
}

async function readAt(path: string, file: FileHandle, position: number, length: number): Promise<Buffer> {
  const {bytesRead, buffer} = await file.read(Buffer.alloc(length), 0, length, position);
  if (bytesRead < length) throw damaged(path, `it ends at byte ${position + bytesRead}`);
  return buffer;
}

function findEnd(path: string, tail: Buffer): number {
  for (let at = tail.length - END.bytes; at >= 0; at--) {
    if (tail.readUInt32LE(at) === END.signature) return at;
  }
  throw damaged(path, 'it is cut short or no ZIP file');
}

function readEnd(tail: Buffer, end: number): Directory {
  const [count, bytes, offset] = [
    tail.readUInt16LE(end + 10),
    tail.readUInt32LE(end + 12),
    tail.readUInt32LE(end + 16),
  ];
  return {count, bytes, offset};
}

async function readEnd64(path: string, file: FileHandle, tail: Buffer, end: number): Promise<Directory | null> {
  const locator = end - LOCATOR64.bytes;
  if (locator < 0 || tail.readUInt32LE(locator) !== LOCATOR64.signature) return null;
  const end64 = await readAt(path, file, Number(tail.readBigUInt64LE(locator + 8)), END64.bytes);
  if (end64.readUInt32LE(0) !== END64.signature) throw damaged(path, 'its ZIP64 directory is missing');
  const [count, bytes, offset] = [32, 40, 48].map((at) => Number(end64.readBigUInt64LE(at))) as [
    number,
    number,
    number,
  ];
  return {count, bytes, offset};
}

function readEntries(path: string, bytes: Buffer, count: number): ZipEntry[] {
  const entries: ZipEntry[] = [];
  for (let at = 0; entries.length < count; ) {
    if (at + CENTRAL.bytes > bytes.length || bytes.readUInt32LE(at) !== CENTRAL.signature) {
      throw damaged(path, `its directory breaks off after ${entries.length} of ${count} files`);
    }
    const next =
      at + CENTRAL.bytes + bytes.readUInt16LE(at + 28) + bytes.readUInt16LE(at + 30) + bytes.readUInt16LE(at + 32);
    if (next > bytes.length) throw damaged(path, `entry ${entries.length} of its directory is cut short`);
    entries.push(readEntry(bytes.subarray(at, next)));
    at = next;
  }
  return entries;
}

function readEntry(record: Buffer): ZipEntry {
  const nameEnd = CENTRAL.bytes + record.readUInt16LE(28);
  const [size, packedSize, offset] = wideNumbers(record, nameEnd);
  return {
    name: record.toString('utf8', CENTRAL.bytes, nameEnd),
    method: record.readUInt16LE(10),
    packedSize,
    size,
    offset,
    isExecutable: ((record.readUInt32LE(38) >>> 16) & 0o100) !== 0,
  };
}

/** Size, packed size and offset of an entry: those that do not fit into 32 bits stand, in this order, in its ZIP64 field. */
function wideNumbers(record: Buffer, extraStart: number): [number, number, number] {
  let wide = findZip64(record, extraStart, extraStart + record.readUInt16LE(30));
  const take = (narrow: number): number => {
    if (narrow !== IN_EXTRA || wide.length < 8) return narrow;
    const value = Number(wide.readBigUInt64LE(0));
    wide = wide.subarray(8);
    return value;
  };
  return [take(record.readUInt32LE(24)), take(record.readUInt32LE(20)), take(record.readUInt32LE(42))];
}

function findZip64(record: Buffer, start: number, end: number): Buffer {
  for (let at = start; at + 4 <= end; at += 4 + record.readUInt16LE(at + 2)) {
    if (record.readUInt16LE(at) === EXTRA_ZIP64) return record.subarray(at + 4, at + 4 + record.readUInt16LE(at + 2));
  }
  return Buffer.alloc(0);
}
