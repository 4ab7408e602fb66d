import {existsSync} from 'node:fs';
import {readFile} from 'node:fs/promises';
import {basename, join} from 'node:path';
import {z} from 'zod';
import {ModelError} from '../util/errors.js';
import {listSome} from '../util/list.js';
import {numElements} from '../util/shape.js';
import {isFloatDtype, widen} from './dtype.js';
import type {ByteRange} from './file-span.js';
import {parseJson} from './json.js';
import {openSafetensors, type SafetensorsFile} from './safetensors.js';
import type {TensorInfo} from './safetensors-header.js';
import {INDEX_FILE, SINGLE_FILE} from './safetensors-writer.js';

/** The tensors of a model, from however many files; nothing is read before it is asked for. */
export interface TensorStore {
  /** The folder or the file they come from. */
  readonly path: string;
  /** What says which tensors there are to be, for messages. */
  readonly asker: string;
  readonly names: readonly string[];
  has(name: string): boolean;
  /** @throws ModelError if there is no such tensor; so do the reads. */
  info(name: string): TensorInfo;
  /** The file that holds a tensor. */
  fileOf(name: string): string;
  /** A whole tensor as float32, row-major. @throws ModelError if its dtype is not a float. */
  read(name: string): Promise<Float32Array>;
  /** Rows [begin, end), which are runs along the last axis and the numbers of a vector, as float32; only their bytes are read. */
  readRows(name: string, begin: number, end: number): Promise<Float32Array>;
  /** The bytes as they stand in the file, all of them or a range. */
  readBytes(name: string, range?: ByteRange): Promise<Uint8Array>;
  close(): Promise<void>;
}

const indexSchema = z.object({weight_map: z.record(z.string(), z.string())});

/**
 * Opens the safetensors of a model folder: `model.safetensors`, else the shards that the index names.
 *
 * @throws ModelError if there are none, a file is damaged, or the index names a shard or tensor that is not there.
 */
export async function openTensors(folder: string): Promise<TensorStore> {
  const single = join(folder, SINGLE_FILE);
  if (existsSync(single)) return openSingle(folder, single);
  const index = join(folder, INDEX_FILE);
  if (existsSync(index)) return openShards(folder, index);
  throw noWeights(folder);
}

async function openSingle(folder: string, path: string): Promise<TensorStore> {
  const file = await openSafetensors(path);
  return createStore(folder, new Map([...file.tensors.keys()].map((name) => [name, file])));
}

async function openShards(folder: string, indexPath: string): Promise<TensorStore> {
  const weightMap = await readIndex(indexPath);
  const shards = new Map<string, SafetensorsFile>();
  try {
    for (const name of new Set(Object.values(weightMap))) shards.set(name, await openShard(folder, name, indexPath));
    requireOnce(shards, indexPath);
    const owners = Object.entries(weightMap).map(
      ([name, shard]) => [name, owner(shards, shard, name, indexPath)] as const,
    );
    return createStore(folder, new Map(owners));
  } catch (error) {
    for (const file of shards.values()) await file.close();
    throw error;
  }
}

/** Readers would differ in which of two they take. */
function requireOnce(shards: ReadonlyMap<string, SafetensorsFile>, indexPath: string): void {
  const first = new Map<string, string>();
  const twice: string[] = [];
  for (const [shard, {tensors}] of shards) {
    for (const name of tensors.keys()) {
      const other = first.get(name);
      if (other !== undefined) twice.push(`"${name}" (${other} and ${shard})`);
      first.set(name, shard);
    }
  }
  if (twice.length === 0) return;
  const which = twice.length > 1 ? `${twice.length} tensors stand` : 'a tensor stands';
  throw new ModelError(`${indexPath}: ${which} in two shards: ${listSome(twice)}.`, {
    hint: 'Save the model again, so that each tensor is in one file.',
  });
}

async function readIndex(path: string): Promise<Record<string, string>> {
  const json = parseJson(await readFile(path, 'utf8'));
  if (json.kind === 'fault') throw new ModelError(`${path}:${json.line}:${json.column}: ${json.reason}.`);
  const index = indexSchema.safeParse(json.value);
  if (!index.success) throw new ModelError(`${path}: "weight_map" must map the name of each tensor to a file.`);
  return index.data.weight_map;
}

async function openShard(folder: string, name: string, indexPath: string): Promise<SafetensorsFile> {
  if (basename(name) !== name) throw new ModelError(`${indexPath}: shard "${name}" must be a file of the same folder.`);
  const path = join(folder, name);
  if (existsSync(path)) return openSafetensors(path);
  throw new ModelError(`${indexPath}: shard "${name}" is not in the folder.`, {
    hint: 'Download the rest of the model.',
  });
}

function owner(
  shards: ReadonlyMap<string, SafetensorsFile>,
  shard: string,
  name: string,
  indexPath: string,
): SafetensorsFile {
  const file = shards.get(shard);
  if (file?.tensors.has(name)) return file;
  throw new ModelError(`${indexPath}: tensor "${name}" should be in ${shard}, which does not have it.`);
}

function noWeights(folder: string): ModelError {
  const pickle = ['pytorch_model.bin', 'pytorch_model.bin.index.json'].find((name) => existsSync(join(folder, name)));
  if (!pickle) return new ModelError(`${folder}: there is neither ${SINGLE_FILE} nor ${INDEX_FILE} in this folder.`);
  return new ModelError(
    `${folder}: there is only ${pickle}, a pickle: reading one runs whatever code it holds. downcycle reads safetensors.`,
    {
      hint: 'If you trust it, load it with transformers and save it with `model.save_pretrained(folder, safe_serialization=True)`.',
    },
  );
}

function createStore(folder: string, owners: ReadonlyMap<string, SafetensorsFile>): TensorStore {
  const fileOf = (name: string): SafetensorsFile => {
    const file = owners.get(name);
    if (!file) throw new ModelError(`${folder}: there is no tensor "${name}" among its ${owners.size}.`);
    return file;
  };
  return {
    path: folder,
    asker: 'config.json',
    names: [...owners.keys()],
    has: (name) => owners.has(name),
    info: (name) => fileOf(name).info(name),
    fileOf: (name) => fileOf(name).path,
    read: async (name) => readFloats(fileOf(name), name),
    readRows: async (name, begin, end) => readFloats(fileOf(name), name, rowRange(fileOf(name).info(name), begin, end)),
    readBytes: async (name, range) => fileOf(name).readBytes(name, range),
    close: async () => {
      for (const file of new Set(owners.values())) await file.close();
    },
  };
}

/** A tensor, or a range of its bytes, as float32. @throws ModelError if its dtype is not a float. */
export async function readFloats(
  file: Pick<SafetensorsFile, 'path' | 'info' | 'readBytes'>,
  name: string,
  range?: ByteRange,
): Promise<Float32Array> {
  const {dtype} = file.info(name);
  if (!isFloatDtype(dtype))
    throw new ModelError(`${file.path}: tensor "${name}" is ${dtype}; real numbers were asked for.`);
  return widen(await file.readBytes(name, range), dtype);
}

/**
 * The bytes of rows [begin, end) of a tensor, which are runs along the last axis and the numbers of a vector.
 *
 * @throws RangeError if it has no such rows.
 */
export function rowRange({name, shape, ...span}: TensorInfo, begin: number, end: number): ByteRange {
  const rows = numElements(shape.length > 1 ? shape.slice(0, -1) : shape);
  if (shape.length === 0 || !(0 <= begin && begin <= end && end <= rows)) {
    throw new RangeError(`rows [${begin}, ${end}) of tensor "${name}", which has shape [${shape.join(', ')}]`);
  }
  const rowBytes = rows === 0 ? 0 : (span.end - span.begin) / rows;
  return {begin: begin * rowBytes, end: end * rowBytes};
}
