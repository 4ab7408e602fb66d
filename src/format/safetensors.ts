import {type FileHandle, open} from 'node:fs/promises';
import {ModelError} from '../util/errors.js';
import {type ByteRange, openForReading, readSpan} from './file-span.js';
import {parseHeader, type SafetensorsHeader, type TensorInfo} from './safetensors-header.js';

/** An open safetensors file. Reads may run at the same time; `close` ends it. */
export interface SafetensorsFile extends SafetensorsHeader {
  readonly path: string;
  /** The tensor called `name`. @throws ModelError if the file has none. */
  info(name: string): TensorInfo;
  /** The bytes of a tensor, or those in `range` counted from its first byte, in memory of their own. */
  readBytes(name: string, range?: ByteRange): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** The limit of the reference implementation; a longer header is taken for damage before anything is allocated. */
const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;

/**
 * Opens a safetensors file and checks its head against its size; tensors are read later, one by one.
 *
 * @throws ModelError naming the file, and the tensor where there is one, if it is missing, truncated or damaged.
 * @throws EnvironmentError if it may not be read.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await openForReading(path);
  try {
    const header = await readHeader(file, path);
    const info = (name: string): TensorInfo => find(header, name, path);
    return {
      path,
      ...header,
      info,
      readBytes: async (name, range) => readTensor(file, info(name), path, range),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Whether a file begins as safetensors do, whole or damaged; false if it cannot be read. */
export async function beginsAsSafetensors(path: string): Promise<boolean> {
  const file = await open(path, 'r').catch(() => null);
  if (!file) return false;
  try {
    const {buffer, bytesRead} = await file.read(Buffer.alloc(LENGTH_BYTES + 1), 0, LENGTH_BYTES + 1, 0);
    const isLength = bytesRead > LENGTH_BYTES && buffer.readBigUInt64LE() <= MAX_HEADER_BYTES;
    return isLength && buffer[LENGTH_BYTES] === '{'.charCodeAt(0);
  } finally {
    await file.close();
  }
}

async function readHeader(file: FileHandle, path: string): Promise<SafetensorsHeader> {
  const stats = await file.stat();
  if (!stats.isFile()) throw new ModelError(`${path}: this is not a file; a safetensors file was expected.`);
  const headerBytes = await readHeaderLength(file, path, stats.size);
  const bytes = await readSpan(file, {begin: LENGTH_BYTES, end: LENGTH_BYTES + headerBytes}, path, 'the header');
  return parseHeader(decode(bytes, path), {path, begin: LENGTH_BYTES + headerBytes, end: stats.size});
}

async function readHeaderLength(file: FileHandle, path: string, fileBytes: number): Promise<number> {
  if (fileBytes < LENGTH_BYTES) {
    throw new ModelError(`${path}: ${fileBytes} bytes are too few for a safetensors file; it is truncated.`);
  }
  const bytes = Buffer.from(await readSpan(file, {begin: 0, end: LENGTH_BYTES}, path, 'the length of the header'));
  if (bytes.toString('latin1') === 'version ') {
    throw new ModelError(`${path}: this is a Git LFS pointer, not the weights.`, {hint: 'Run `git lfs pull` there.'});
  }
  const length = Number(bytes.readBigUInt64LE());
  if (length > MAX_HEADER_BYTES) {
    throw new ModelError(
      `${path}: the header claims ${length} bytes, the limit is ${MAX_HEADER_BYTES}; this is no safetensors file.`,
    );
  }
  const rest = fileBytes - LENGTH_BYTES;
  if (length > rest) {
    throw new ModelError(`${path}: the header claims ${length} bytes, the file has ${rest} more; it is truncated.`);
  }
  return length;
}

function decode(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder('utf-8', {fatal: true, ignoreBOM: true}).decode(bytes);
  } catch (cause) {
    throw new ModelError(`${path}: the header is not UTF-8 text.`, {cause});
  }
}

function find({tensors}: SafetensorsHeader, name: string, path: string): TensorInfo {
  const tensor = tensors.get(name);
  if (!tensor) throw new ModelError(`${path}: there is no tensor "${name}" among its ${tensors.size}.`);
  return tensor;
}

async function readTensor(file: FileHandle, tensor: TensorInfo, path: string, range?: ByteRange): Promise<Uint8Array> {
  const size = tensor.end - tensor.begin;
  const {begin, end} = range ?? {begin: 0, end: size};
  if (!(0 <= begin && begin <= end && end <= size)) {
    throw new RangeError(`bytes [${begin}, ${end}) of tensor "${tensor.name}", which has ${size}`);
  }
  const span = {begin: tensor.begin + begin, end: tensor.begin + end};
  return readSpan(file, span, path, `tensor "${tensor.name}"`);
}
