// The tensors of a GGUF file as those of a Hugging Face folder: by their names there, in their order of rows, unpacked.
import {ModelError} from '../../util/errors.js';
import {numElements} from '../../util/shape.js';
import {DTYPE_BYTES, widen} from '../dtype.js';
import {allocate, type ByteRange} from '../file-span.js';
import type {TensorInfo} from '../safetensors-header.js';
import {rowRange, type TensorStore} from '../tensor-store.js';
import type {GgufFile} from './file.js';
import type {PackedTensor} from './header.js';
import {folderName, type GgufFamily, ROPE_FACTORS} from './names.js';

/** A tensor of the file as rows that are unpacked one by one, and turned within heads. */
interface Rows {
  readonly packed: PackedTensor;
  readonly numRows: number;
  /** Bytes of a row in the file, and once unpacked. */
  readonly packedBytes: number;
  readonly rowBytes: number;
  /** Rows of a head whose pairs are neighbours in the file; null of tensors whose rows lie as in a folder. */
  readonly headRows: number | null;
}

/** Bytes of the file that are unpacked at once. */
const PIECE = 2 ** 22;

/**
 * The tensors of an open file. Nothing is read before it is asked for; blocks become float32, other numbers keep their bits.
 *
 * @param headDim rows of one head of queries or keys.
 * @throws ModelError if two tensors are one by the name that a folder has for them.
 */
export function ggufTensors(file: GgufFile, family: GgufFamily, headDim: number): TensorStore {
  const all = rowsByName(file, family, headDim);
  const find = (name: string): Rows => {
    const rows = all.get(name);
    if (!rows) throw new ModelError(`${file.path}: there is no tensor "${name}" among its ${all.size}.`);
    return rows;
  };
  const readBytes = (name: string, range?: ByteRange): Promise<Uint8Array> => readRange(file, name, find(name), range);
  const read = async (name: string, range?: ByteRange): Promise<Float32Array> =>
    widen(await readBytes(name, range), find(name).packed.packing.dtype);
  return {
    path: file.path,
    asker: 'its head',
    names: [...all.keys()],
    has: (name) => all.has(name),
    info: (name) => infoOf(name, find(name)),
    fileOf: (name) => {
      find(name);
      return file.path;
    },
    read,
    readRows: async (name, begin, end) => read(name, rowRange(infoOf(name, find(name)), begin, end)),
    readBytes,
    close: () => file.close(),
  };
}

function rowsByName({tensors, path}: GgufFile, family: GgufFamily, headDim: number): Map<string, Rows> {
  const all = new Map<string, Rows>();
  for (const packed of tensors.values()) {
    if (packed.name === ROPE_FACTORS) continue; // said by the config
    const name = folderName(packed.name, family);
    if (all.has(name)) throw new ModelError(`${path}: tensors "${packed.name}" and "${name}" are the same one.`);
    const isTurned = family.isInterleaved && /\.attn_[qk]\.(weight|bias)$/.test(packed.name);
    all.set(name, rowsOf(packed, path, isTurned ? headDim : null));
  }
  return all;
}

/** A vector is rows of one number, since that is how one is turned. */
function rowsOf(packed: PackedTensor, path: string, headRows: number | null): Rows {
  const {name, shape, packing, begin, end} = packed;
  const numRows = numElements(shape.length > 1 ? shape.slice(0, -1) : shape);
  if (shape.length === 1 && packing.unpack) {
    throw new ModelError(`${path}: tensor "${name}" is a vector of ${packing.type}; vectors are read unquantised.`);
  }
  if (headRows !== null && numRows % headRows !== 0) {
    throw new ModelError(`${path}: tensor "${name}" has ${numRows} rows, which are no heads of ${headRows}.`);
  }
  const bytes = numElements(shape) * DTYPE_BYTES[packing.dtype];
  const [packedBytes, rowBytes] = numRows === 0 ? [0, 0] : [(end - begin) / numRows, bytes / numRows];
  return {packed, numRows, packedBytes, rowBytes, headRows};
}

function infoOf(name: string, {packed: {shape, packing, begin, end}, numRows, rowBytes}: Rows): TensorInfo {
  const packed = {type: packing.type, bytes: end - begin};
  return {name, dtype: packing.dtype, shape, begin: 0, end: numRows * rowBytes, packed};
}

async function readRange(file: GgufFile, name: string, rows: Rows, range?: ByteRange): Promise<Uint8Array> {
  const {numRows, rowBytes, headRows} = rows;
  const size = numRows * rowBytes;
  const {begin, end} = range ?? {begin: 0, end: size};
  if (!(0 <= begin && begin <= end && end <= size)) {
    throw new RangeError(`bytes [${begin}, ${end}) of tensor "${name}", which has ${size}`);
  }
  if (begin === end) return new Uint8Array(0);
  const unit = rowBytes * (headRows ?? 1);
  const [first, last] = [Math.floor(begin / unit), Math.ceil(end / unit)];
  const bytes = await readRows(file, rows, {begin: first * (headRows ?? 1), end: last * (headRows ?? 1)});
  return bytes.length === end - begin ? bytes : bytes.slice(begin - first * unit, end - first * unit);
}

/** Rows [begin, end), whole heads where there are heads: read, unpacked and turned piece by piece. */
async function readRows(file: GgufFile, rows: Rows, {begin, end}: ByteRange): Promise<Uint8Array> {
  const {packed, packedBytes, rowBytes, headRows} = rows;
  const what = `tensor "${packed.name}"`;
  const read = (from: number, to: number): Promise<Uint8Array> =>
    file.read({begin: packed.begin + from * packedBytes, end: packed.begin + to * packedBytes}, what);
  if (!packed.packing.unpack && headRows === null) return read(begin, end);
  const bytes = allocate((end - begin) * rowBytes, file.path, what);
  const group = headRows ?? 1;
  const step = group * Math.max(1, Math.floor(PIECE / (packedBytes * group)));
  for (let from = begin; from < end; from += step) {
    const to = Math.min(from + step, end);
    const target = bytes.subarray((from - begin) * rowBytes, (to - begin) * rowBytes);
    unpackRows(await read(from, to), rows, target);
  }
  return bytes;
}

function unpackRows(source: Uint8Array, {packed, rowBytes, headRows}: Rows, target: Uint8Array): void {
  const {unpack} = packed.packing;
  const plain = unpack && headRows !== null ? new Uint8Array(target.length) : target;
  if (unpack) unpack(source, new Float32Array(plain.buffer, plain.byteOffset, plain.length / 4));
  if (headRows !== null) turnHeads(unpack ? plain : source, rowBytes, headRows, target);
}

/** Pairs of a head that are neighbours in the file, rows 2j and 2j + 1, come to lie half a head apart, j and j + half. */
function turnHeads(source: Uint8Array, rowBytes: number, headRows: number, target: Uint8Array): void {
  const half = headRows / 2;
  const numRows = source.length / rowBytes;
  for (let head = 0; head < numRows; head += headRows) {
    for (let row = 0; row < headRows; row++) {
      const from = (head + 2 * (row % half) + (row < half ? 0 : 1)) * rowBytes;
      target.set(source.subarray(from, from + rowBytes), (head + row) * rowBytes);
    }
  }
}
