import {type FileHandle, open, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {refuseExisting, writeFileAtomic} from '../util/atomic.js';
import {ModelError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import {isFloatDtype, narrow} from './dtype.js';
import {checkSpecs, renderHeader, type TensorInfo, type TensorSpec, tensorBytes} from './safetensors-header.js';

/** Gives a tensor to the writer: numbers, which are rounded to its dtype, or its bytes as they are. */
export type TensorSource = (name: string) => Promise<Float32Array | Uint8Array>;

/** How `writeSafetensors` cuts and labels its files. */
export interface WriteOptions {
  /** A new file starts before a tensor that would take the current one past this. Default 2e9. */
  readonly maxShardBytes?: number;
  /** Text to put in the head of every file, beside `format: pt`. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** One file to be written and the tensors that go into it. */
interface Shard {
  readonly file: string;
  readonly specs: readonly TensorSpec[];
}

/** Names that transformers looks for. */
export const SINGLE_FILE = 'model.safetensors';
/** The file that says which shard holds which tensor. */
export const INDEX_FILE = 'model.safetensors.index.json';
/** Numbers are rounded this many at a time, so that a large tensor is not held twice. */
const VALUES_PER_WRITE = 2 ** 22;

/**
 * Writes tensors as `model.safetensors`, or as numbered shards and an index if they do not fit into one file.
 *
 * `read` is called once a tensor, in the order of `specs`, and its result is let go before the next call: the peak is
 * one tensor. Everything is synced. Returns the names of the files.
 * @throws ModelError if a spec is impossible, `read` gives another number of elements than its shape says, or a number is
 * too large for float16.
 * @throws EnvironmentError if a file is in the way.
 *
 * After any error the files written so far are removed. Errors of the disk come out as the system gave them, since
 * `writeFolderAtomic`, inside which this is meant to run, knows the path that the user asked for.
 */
export async function writeSafetensors(
  folder: string,
  specs: readonly TensorSpec[],
  read: TensorSource,
  {maxShardBytes = 2e9, metadata = {}}: WriteOptions = {},
): Promise<readonly string[]> {
  checkSpecs(specs);
  const shards = planShards(specs, maxShardBytes);
  const written: string[] = [];
  try {
    for (const shard of shards) {
      const path = join(folder, shard.file);
      await refuseExisting(path);
      const file = await open(path, 'wx');
      written.push(path);
      await fill(file, shard, read, {format: 'pt', ...metadata});
    }
    if (shards.length > 1) await writeIndex(folder, shards);
  } catch (error) {
    for (const path of written) await rm(path, {force: true});
    throw error;
  }
  return [...shards.map(({file}) => file), ...(shards.length > 1 ? [INDEX_FILE] : [])];
}

/** Cuts the tensors, in order, into files of at most `maxShardBytes`; a larger tensor gets a file of its own. */
function planShards(specs: readonly TensorSpec[], maxShardBytes: number): readonly Shard[] {
  const groups: TensorSpec[][] = [[]];
  let bytes = 0;
  for (const spec of specs) {
    const size = tensorBytes(spec);
    if (bytes > 0 && bytes + size > maxShardBytes) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)?.push(spec);
    bytes += size;
  }
  const pad = (i: number): string => String(i).padStart(5, '0');
  const name = (i: number): string => `model-${pad(i + 1)}-of-${pad(groups.length)}.safetensors`;
  return groups.map((group, i) => ({file: groups.length === 1 ? SINGLE_FILE : name(i), specs: group}));
}

async function fill(
  file: FileHandle,
  shard: Shard,
  read: TensorSource,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  try {
    const header = renderHeader(shard.specs, metadata);
    await writeAll(file, header.bytes, 0);
    for (const {name} of shard.specs) {
      const tensor = header.tensors.get(name);
      if (tensor) await writeTensor(file, shard, tensor, await read(name));
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

async function writeTensor(
  file: FileHandle,
  shard: Shard,
  tensor: TensorInfo,
  data: Float32Array | Uint8Array,
): Promise<void> {
  const {name, dtype, shape} = tensor;
  const isBytes = data instanceof Uint8Array;
  const needed = isBytes ? tensorBytes(tensor) : numElements(shape);
  if (data.length !== needed) {
    const unit = isBytes ? 'bytes' : 'numbers';
    throw new ModelError(
      `${shard.file}: tensor "${name}" of ${dtype} [${shape.join(', ')}] needs ${needed} ${unit}, it was given ${data.length}.`,
    );
  }
  if (isBytes) return writeAll(file, data, tensor.begin);
  if (!isFloatDtype(dtype))
    throw new ModelError(`${shard.file}: tensor "${name}" is ${dtype} and must be given as bytes.`);
  if (dtype === 'F16') requireHalf(data, shard.file, name);
  let position = tensor.begin;
  for (let i = 0; i < data.length; i += VALUES_PER_WRITE) {
    const bytes = narrow(data.subarray(i, i + VALUES_PER_WRITE), dtype);
    await writeAll(file, bytes, position);
    position += bytes.length;
  }
}

/** From here on a number is nearer to infinity than to the largest of float16, 65504. */
const BEYOND_HALF = 65_520;

/** @throws ModelError if a finite number would become infinite. */
function requireHalf(data: Float32Array, file: string, name: string): void {
  for (const value of data) {
    if (Math.abs(value) < BEYOND_HALF || !Number.isFinite(value)) continue;
    throw new ModelError(`${file}: tensor "${name}" holds ${value.toPrecision(4)}; float16 ends at 65504.`, {
      hint: 'Start from a model stored in bfloat16 or float32; `merge` takes --dtype.',
    });
  }
}

/** A write call may take less than it was given, 2 GiB at most: goes on until all is written. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const part = bytes.subarray(done, done + 2 ** 30);
    const {bytesWritten} = await file.write(part, 0, part.length, position + done);
    done += bytesWritten;
  }
}

async function writeIndex(folder: string, shards: readonly Shard[]): Promise<void> {
  const specs = shards.flatMap((shard) => shard.specs);
  const total = specs.reduce((sum, spec) => sum + tensorBytes(spec), 0);
  const entries = shards.flatMap(({file, specs}) => specs.map(({name}) => [name, file] as const));
  const weightMap = Object.fromEntries(entries.toSorted(([a], [b]) => (a < b ? -1 : 1)));
  const index = {metadata: {total_size: total}, weight_map: weightMap};
  await writeFileAtomic(join(folder, INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`);
}
