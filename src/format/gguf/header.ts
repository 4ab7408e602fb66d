// The head of a GGUF file: keys, and where the tensors lie. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
import {ModelError} from '../../util/errors.js';
import {numElements} from '../../util/shape.js';
import {type Cursor, createCursor, readText, readU32, readU64} from './cursor.js';
import {type Metadata, readMetadata} from './metadata.js';
import {PACKINGS, type Packing, packingName} from './packing.js';

/** A tensor of a file; its bytes are [begin, end) counted from the start of the file. */
export interface PackedTensor {
  readonly name: string;
  /** Axes in our order, rows before columns, which is the reverse of the file's. */
  readonly shape: readonly number[];
  readonly packing: Packing;
  readonly begin: number;
  readonly end: number;
}

/** What the head of a file says. */
export interface GgufHeader {
  readonly metadata: Metadata;
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, PackedTensor>;
}

/** What a file begins with. */
export const MAGIC = 'GGUF';
const VERSIONS = [2, 3];
/** The largest published models have about two thousand. */
const MAX_TENSORS = 100_000;
/** What llama.cpp allows is 64. */
const MAX_NAME_BYTES = 1024;
/** Of ggml. */
const MAX_DIMS = 4;
const DEFAULT_ALIGNMENT = 32;
/** A tensor has a name's length, a number of axes, one axis, a type and an offset at the least. */
const LEAST_TENSOR_BYTES = 32;

/**
 * Reads the head out of the first bytes of a file.
 *
 * @throws ModelError naming file and tensor or key; {@link MoreNeeded} if the head is longer than `bytes`.
 */
export function parseGgufHeader(bytes: Uint8Array, path: string, size: number): GgufHeader {
  const cursor = createCursor(bytes, path, size);
  readVersion(cursor);
  const [numTensors, numKeys] = [readU64(cursor), readU64(cursor)];
  if (numTensors > MAX_TENSORS) {
    throw new ModelError(`${path}: the head claims ${numTensors} tensors; the limit is ${MAX_TENSORS}.`);
  }
  if (numTensors * LEAST_TENSOR_BYTES > size) {
    throw new ModelError(`${path}: the head claims ${numTensors} tensors, more than its ${size} bytes can hold.`, {
      hint: 'The file may be cut short: fetch it again.',
    });
  }
  const metadata = readMetadata(cursor, numKeys);
  const alignment = alignmentOf(metadata, path);
  const entries = Array.from({length: numTensors}, (_, i) => readEntry(cursor, `tensor ${i + 1} of ${numTensors}`));
  const begin = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = entries.map((entry) => place(entry, {path, begin, size, alignment}));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkDisjoint(tensors, path);
  return {metadata, tensors: byName(tensors, path)};
}

function readVersion(cursor: Cursor): void {
  const {path, bytes} = cursor;
  const first = Buffer.from(bytes.subarray(0, 8)).toString('latin1');
  if (first === 'version ') {
    throw new ModelError(`${path}: this is a Git LFS pointer, not the weights.`, {hint: 'Run `git lfs pull` there.'});
  }
  if (!first.startsWith(MAGIC)) {
    throw new ModelError(`${path}: this is not a GGUF file; it does not begin with "${MAGIC}".`, {
      hint: 'A model is a Hugging Face folder with config.json and safetensors, or a GGUF file.',
    });
  }
  cursor.at = 4;
  const version = readU32(cursor);
  if (VERSIONS.includes(version)) return;
  if (version !== 0 && (version & 0xffff) === 0)
    throw new ModelError(`${path}: this GGUF file is big-endian, which is not read.`);
  throw new ModelError(`${path}: this is GGUF of version ${version}; versions ${VERSIONS.join(' and ')} are read.`, {
    hint: 'Make it again with a current llama.cpp.',
  });
}

function alignmentOf(metadata: Metadata, path: string): number {
  const alignment = metadata.get('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (typeof alignment === 'number' && alignment >= 1 && Number.isInteger(Math.log2(alignment))) return alignment;
  const found = typeof alignment === 'object' ? 'a list' : JSON.stringify(alignment);
  throw new ModelError(`${path}: general.alignment is ${found}; a power of two is needed.`);
}

interface Entry {
  readonly name: string;
  readonly shape: readonly number[];
  readonly code: number;
  readonly offset: number;
}

function readEntry(cursor: Cursor, what: string): Entry {
  cursor.what = what;
  const name = readText(cursor, MAX_NAME_BYTES);
  cursor.what = `the head of tensor "${name}"`;
  const numAxes = readU32(cursor);
  if (numAxes < 1 || numAxes > MAX_DIMS) {
    throw new ModelError(`${cursor.path}: tensor "${name}" has ${numAxes} axes; 1 to ${MAX_DIMS} are possible.`);
  }
  const shape = Array.from({length: numAxes}, () => readU64(cursor)).reverse();
  return {name, shape, code: readU32(cursor), offset: readU64(cursor)};
}

interface Data {
  readonly path: string;
  readonly begin: number;
  readonly size: number;
  readonly alignment: number;
}

function place({name, shape, code, offset}: Entry, {path, begin, size, alignment}: Data): PackedTensor {
  const fail = (what: string, hint?: string): ModelError =>
    new ModelError(`${path}: tensor "${name}" ${what}.`, hint === undefined ? {} : {hint});
  const packing = PACKINGS.get(code);
  if (!packing) throw fail(`is ${packingName(code)}; ${knownPackings()} are read`, REQUANTISE);
  const {blockSize, blockBytes, type} = packing;
  const columns = shape.at(-1) ?? 0;
  const isWhole = Number.isSafeInteger(numElements(shape)) && columns % blockSize === 0;
  if (!isWhole) throw fail(`of ${type} cannot have shape [${shape.join(', ')}]`);
  if (offset % alignment !== 0) throw fail(`begins at byte ${offset} of the data, no multiple of ${alignment}`);
  const bytes = (numElements(shape) / blockSize) * blockBytes;
  const available = Math.max(0, size - begin);
  if (offset + bytes > available) {
    throw fail(`ends at byte ${offset + bytes} of the data, the file has ${available}; it may be truncated`);
  }
  return {name, shape, packing, begin: begin + offset, end: begin + offset + bytes};
}

const REQUANTISE =
  'Give a file of one of those types, or the safetensors that it was made of; `llama-quantize --allow-requantize <file> <new> Q8_0` of llama.cpp makes one.';

function knownPackings(): string {
  const types = [...PACKINGS.values()].map(({type}) => type);
  return `${types.slice(0, -1).join(', ')} and ${types.at(-1)}`;
}

function checkDisjoint(tensors: readonly PackedTensor[], path: string): void {
  for (const [i, {name, begin}] of tensors.entries()) {
    const before = tensors[i - 1];
    if (before && before.end > begin) throw new ModelError(`${path}: tensors "${before.name}" and "${name}" overlap.`);
  }
}

function byName(tensors: readonly PackedTensor[], path: string): Map<string, PackedTensor> {
  const named = new Map<string, PackedTensor>();
  for (const tensor of tensors) {
    if (named.has(tensor.name)) throw new ModelError(`${path}: tensor "${tensor.name}" stands twice in the head.`);
    named.set(tensor.name, tensor);
  }
  return named;
}
