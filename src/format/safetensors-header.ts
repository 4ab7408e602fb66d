import {z} from 'zod';
import {ModelError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import {DTYPE_BYTES, type Dtype, isDtype} from './dtype.js';
import {repeatedName} from './json.js';

/** A tensor before it has bytes. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: Dtype;
  readonly shape: readonly number[];
}

/** A tensor of a file; its bytes are [begin, end) counted from the start of the file. */
export interface TensorInfo extends TensorSpec {
  readonly begin: number;
  readonly end: number;
  /** There where numbers are unpacked as they are read, and `begin` and `end` are of what comes of it: how the file has them. */
  readonly packed?: {readonly type: string; readonly bytes: number};
}

/** What the head of a safetensors file says; tensors in the order of their bytes. */
export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** Where the tensors' bytes lie in a file. */
export interface DataSpan {
  readonly path: string;
  readonly begin: number;
  readonly end: number;
}

/** No model has tensors of more axes; a longer shape is a damaged header. */
const MAX_DIMS = 16;
const METADATA = '__metadata__';

const metadataSchema = z.record(z.string(), z.string()).default({});
const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()).max(MAX_DIMS, `more than ${MAX_DIMS} axes`),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});

/** What the file of a tensor has it as: a dtype, or how it is packed. */
export function storedType({dtype, packed}: TensorInfo): string {
  return packed?.type ?? dtype;
}

/** How many tensors there are of each {@link storedType}. */
export function countStored(tensors: readonly TensorInfo[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const type of tensors.map(storedType)) counts[type] = (counts[type] ?? 0) + 1;
  return counts;
}

/** How many bytes a tensor takes. */
export function tensorBytes({dtype, shape}: Pick<TensorSpec, 'dtype' | 'shape'>): number {
  return numElements(shape) * DTYPE_BYTES[dtype];
}

/**
 * Reads the JSON head of a safetensors file and checks that its tensors tile the data exactly.
 *
 * @throws ModelError naming file and tensor: not JSON, a name twice, unknown dtype, too many axes, offsets that do not
 *   fit dtype and shape, leave the file, overlap or leave a hole, metadata that is not text.
 */
export function parseHeader(json: string, span: DataSpan): SafetensorsHeader {
  const {[METADATA]: rawMetadata, ...entries} = parseObject(json, span.path);
  const metadata = metadataSchema.safeParse(rawMetadata);
  if (!metadata.success) throw damaged(span.path, `${METADATA} must map text to text`);
  const tensors = Object.entries(entries).map(([name, entry]) => parseEntry(name, entry, span));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);
  checkTiling(tensors, span);
  return {tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata: metadata.data};
}

/**
 * The head of a file: length, JSON padded with spaces to a multiple of 8, and where each tensor's bytes go.
 *
 * Wider dtypes come first, so that every tensor starts at a multiple of its element size; some readers need that.
 */
export function renderHeader(
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>>,
): {readonly bytes: Uint8Array; readonly tensors: ReadonlyMap<string, TensorInfo>} {
  const ordered = specs.toSorted((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype]);
  const placed = place(ordered);
  const fields = placed.map(({name, dtype, shape, begin, end}) => [name, {dtype, shape, data_offsets: [begin, end]}]);
  const json = Buffer.from(JSON.stringify({[METADATA]: metadata, ...Object.fromEntries(fields)}));
  const bytes = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, ' ');
  bytes.writeBigUInt64LE(BigInt(bytes.length - 8));
  json.copy(bytes, 8);
  const shifted = placed.map((tensor) => shift(tensor, bytes.length));
  return {bytes, tensors: new Map(shifted.map((tensor) => [tensor.name, tensor]))};
}

/** @throws ModelError if a tensor that is to be written has no proper name or shape, or a name that stands twice. */
export function checkSpecs(specs: readonly TensorSpec[]): void {
  const seen = new Set<string>();
  for (const {name, shape} of specs) {
    if (name === '' || name === METADATA) throw new ModelError(`"${name}" cannot be the name of a tensor.`);
    if (seen.has(name)) throw new ModelError(`Tensor "${name}" is to be written twice.`);
    const isShape = shape.length <= MAX_DIMS && shape.every((size) => Number.isSafeInteger(size) && size >= 0);
    if (!isShape) throw new ModelError(`Tensor "${name}" cannot have shape [${shape.join(', ')}].`);
    seen.add(name);
  }
}

function parseObject(json: string, path: string): Record<string, unknown> {
  const value = parseOrExplain(json, path);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw damaged(path, 'the header is not a JSON object');
  }
  const repeated = repeatedName(json);
  if (repeated !== undefined) throw damaged(path, `tensor "${repeated}" stands twice in the header`);
  return {...value};
}

function parseOrExplain(json: string, path: string): unknown {
  try {
    return JSON.parse(json) as unknown;
  } catch (cause) {
    throw damaged(path, 'the header is not JSON', cause);
  }
}

function parseEntry(name: string, raw: unknown, span: DataSpan): TensorInfo {
  const fail = (what: string): ModelError => damaged(span.path, `tensor "${name}" ${what}`);
  const entry = entrySchema.safeParse(raw);
  if (!entry.success) {
    const [issue] = entry.error.issues;
    throw fail(`has a wrong entry in the header: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  const {dtype, shape, data_offsets} = entry.data;
  if (!isDtype(dtype)) {
    throw fail(`has dtype ${dtype}; downcycle reads ${Object.keys(DTYPE_BYTES).join(', ')}`);
  }
  const [begin, end] = data_offsets;
  const available = span.end - span.begin;
  if (end > available) throw fail(`ends at byte ${end} of the data, the file has ${available}; it may be truncated`);
  const bytes = tensorBytes({dtype, shape});
  if (end - begin !== bytes) {
    throw fail(`of ${dtype} [${shape.join(', ')}] needs ${bytes} bytes, its offsets give ${end - begin}`);
  }
  return shift({name, dtype, shape, begin, end}, span.begin);
}

/** Each tensor must start where the one before it ends, and the last one must end the file. */
function checkTiling(tensors: readonly TensorInfo[], span: DataSpan): void {
  let end = span.begin;
  let previous = '';
  for (const tensor of tensors) {
    if (tensor.begin < end) throw damaged(span.path, `tensors "${previous}" and "${tensor.name}" overlap`);
    if (tensor.begin > end) {
      throw damaged(span.path, `${tensor.begin - end} bytes before tensor "${tensor.name}" belong to no tensor`);
    }
    end = tensor.end;
    previous = tensor.name;
  }
  if (end < span.end) throw damaged(span.path, `the last ${span.end - end} bytes belong to no tensor`);
}

function place(specs: readonly TensorSpec[]): TensorInfo[] {
  let begin = 0;
  return specs.map((spec) => {
    const info = {...spec, begin, end: begin + tensorBytes(spec)};
    begin = info.end;
    return info;
  });
}

function shift(tensor: TensorInfo, by: number): TensorInfo {
  return {...tensor, begin: tensor.begin + by, end: tensor.end + by};
}

function damaged(path: string, what: string, cause?: unknown): ModelError {
  return new ModelError(`${path}: ${what}.`, cause === undefined ? {} : {cause});
}
