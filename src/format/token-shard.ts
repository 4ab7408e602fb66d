import {type FileHandle, open} from 'node:fs/promises';
import {type AsyncRecordBatchFileReader, DataType, type RecordBatch, RecordBatchReader} from 'apache-arrow';
import {DataError, DowncycleError, systemCode} from '../util/errors.js';
import {parseShardMetadata, type ShardMetadata} from './token-shard-metadata.js';

/** Rows of packed tokens, each of sequenceLength + 1 values, row after row. */
export interface ShardRows {
  readonly tokens: Int32Array;
  /** Which document of its row a token belongs to, counted from 0; there when boundaries were kept. */
  readonly segments?: Int32Array;
  /** 1 where the token is to be predicted, 0 where not; there in supervised data. */
  readonly mask?: Int32Array;
}

/** An open shard. Reads are ranged and cached a little; close it when done. */
export interface TokenShard {
  readonly path: string;
  readonly metadata: ShardMetadata;
  readonly rows: number;
  /** Rows `begin` to `end - 1`. @throws DataError if the file is damaged there or a token is outside the vocabulary. */
  readRows(begin: number, end: number): Promise<ShardRows>;
  close(): Promise<void>;
}

/** What the reader of a shard needs it to be. */
export interface ShardExpectation {
  readonly sequenceLength?: number;
  readonly tokenizerSha256?: string;
  /** Ids at or above it are refused when they are read. */
  readonly vocabSize?: number;
}

export const COLUMNS = ['tokens', 'segments', 'mask'] as const;
const MAGIC = 'ARROW1';
/** Record batches kept in memory; they hold about 128 KiB a column each. */
const CACHED_BATCHES = 64;

/**
 * Opens an Arrow file of packed tokens (one column `tokens: FixedSizeList<int32>[sequenceLength + 1]`).
 *
 * @throws DataError if it is no whole Arrow file, is no token shard, or is not what `expected` asks for.
 */
export async function openTokenShard(path: string, expected: ShardExpectation = {}): Promise<TokenShard> {
  const file = await openFile(path);
  try {
    await refuseForeign(path, file);
    const reader = await openReader(path, file);
    const metadata = parseShardMetadata(path, reader.schema.metadata);
    checkColumns(path, reader, metadata);
    checkExpected(path, metadata, expected);
    return createShard(path, reader, metadata, expected.vocabSize);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function createShard(
  path: string,
  reader: AsyncRecordBatchFileReader,
  metadata: ShardMetadata,
  vocabSize: number | undefined,
): TokenShard {
  const readBatch = cached(CACHED_BATCHES, async (index) => {
    const batch = toRows(path, index, metadata, await readRecordBatch(path, reader, index));
    if (vocabSize !== undefined) checkTokens(path, index * metadata.rowsPerBatch, metadata, batch.tokens, vocabSize);
    return batch;
  });
  return {
    path,
    metadata,
    rows: metadata.rows,
    readRows: async (begin, end) => {
      if (!(begin >= 0 && begin < end && end <= metadata.rows)) {
        throw new RangeError(`${path}: rows ${begin} to ${end} of ${metadata.rows}`);
      }
      const first = Math.floor(begin / metadata.rowsPerBatch);
      const last = Math.floor((end - 1) / metadata.rowsPerBatch);
      const parts: ShardRows[] = [];
      for (let index = first; index <= last; index++) {
        parts.push(
          sliceRows(
            await readBatch(index),
            metadata,
            begin - index * metadata.rowsPerBatch,
            end - index * metadata.rowsPerBatch,
          ),
        );
      }
      return joinRows(parts);
    },
    close: () => reader.cancel(),
  };
}

/** One call at a time, since the reader has one position; the latest results are kept. */
function cached<T>(capacity: number, read: (index: number) => Promise<T>): (index: number) => Promise<T> {
  const kept = new Map<number, Promise<T>>();
  let turn: Promise<unknown> = Promise.resolve();
  return (index) => {
    const hit = kept.get(index);
    const result = hit === undefined ? turn.then(() => read(index)) : hit;
    if (hit === undefined) turn = result.catch(() => kept.delete(index));
    kept.delete(index);
    kept.set(index, result);
    const [oldest] = kept.keys();
    if (kept.size > capacity && oldest !== undefined) kept.delete(oldest);
    return result;
  };
}

async function openFile(path: string): Promise<FileHandle> {
  return open(path, 'r').catch((error: unknown) => {
    const reason = systemCode(error) === 'ENOENT' ? 'does not exist' : 'cannot be read';
    throw new DataError(`Token shard ${path} ${reason}.`, {hint: 'Make it with `downcycle prepare`.', cause: error});
  });
}

/** The library takes anything for a file and invents zeros past its end, so both ends are looked at first. */
async function refuseForeign(path: string, file: FileHandle): Promise<void> {
  const {size} = await file.stat();
  const tail = Buffer.alloc(10);
  const head = Buffer.alloc(MAGIC.length);
  await file.read(head, 0, head.length, 0);
  if (head.toString('latin1') !== MAGIC) {
    throw new DataError(`${path} is no Arrow file: it does not begin with ${MAGIC}.`, {
      hint: 'Text, JSONL and parquet become shards with `downcycle prepare`.',
    });
  }
  await file.read(tail, 0, tail.length, Math.max(0, size - tail.length));
  const footer = tail.readInt32LE(0);
  if (tail.toString('latin1', 4) !== MAGIC || footer <= 0 || footer + tail.length + MAGIC.length >= size) {
    throw new DataError(`${path} is truncated: its ${size} bytes do not end in a whole footer.`, {
      hint: 'Copy it again or make it again with `downcycle prepare`.',
    });
  }
}

async function openReader(path: string, file: FileHandle): Promise<AsyncRecordBatchFileReader> {
  try {
    const reader = await RecordBatchReader.from(file);
    await reader.open({autoDestroy: false});
    return reader as AsyncRecordBatchFileReader;
  } catch (error) {
    throw damaged(path, 'its footer cannot be read', error);
  }
}

async function readRecordBatch(path: string, reader: AsyncRecordBatchFileReader, index: number): Promise<RecordBatch> {
  const batch = await reader.readRecordBatch(index).catch((error: unknown) => {
    throw damaged(path, `record batch ${index} cannot be read`, error);
  });
  if (!batch) throw damaged(path, `record batch ${index} is missing`);
  return batch;
}

function checkColumns(path: string, reader: AsyncRecordBatchFileReader, metadata: ShardMetadata): void {
  const width = metadata.sequenceLength + 1;
  const fields = reader.schema.fields;
  if (fields[0]?.name !== 'tokens') {
    const found = fields.map((field) => field.name).join(', ') || 'none';
    throw new DataError(`${path} has no first column \`tokens\`; its columns: ${found}.`);
  }
  for (const {name, type} of fields) {
    const isRows = DataType.isFixedSizeList(type) && DataType.isInt(type.valueType) && type.valueType.bitWidth === 32;
    if (isRows && type.listSize === width) continue;
    throw new DataError(`${path}: column \`${name}\` is ${String(type)}, expected FixedSizeList<int32>[${width}].`);
  }
  if (reader.numRecordBatches !== Math.ceil(metadata.rows / metadata.rowsPerBatch)) {
    throw damaged(path, `${reader.numRecordBatches} record batches do not hold its ${metadata.rows} rows`);
  }
}

function checkExpected(path: string, metadata: ShardMetadata, expected: ShardExpectation): void {
  const {sequenceLength, tokenizerSha256} = expected;
  if (sequenceLength !== undefined && metadata.sequenceLength !== sequenceLength) {
    throw new DataError(
      `${path} is a shard of another sequence length: ${metadata.sequenceLength}, asked for ${sequenceLength}.`,
      {
        hint: `Set data.sequenceLength to ${metadata.sequenceLength} or prepare the text again.`,
      },
    );
  }
  if (tokenizerSha256 !== undefined && metadata.tokenizerSha256 !== tokenizerSha256) {
    const [made, wanted] = [metadata.tokenizerSha256, tokenizerSha256].map((hash) => hash.slice(0, 12));
    throw new DataError(`${path} was made with another tokenizer: SHA-256 ${made}..., the model's is ${wanted}....`, {
      hint: "Prepare the text again with this model's tokenizer.",
    });
  }
}

function checkTokens(
  path: string,
  firstRow: number,
  {sequenceLength}: ShardMetadata,
  tokens: Int32Array,
  vocabSize: number,
): void {
  const at = tokens.findIndex((id) => id < 0 || id >= vocabSize);
  if (at < 0) return;
  const row = firstRow + Math.floor(at / (sequenceLength + 1));
  throw new DataError(`${path}: row ${row} holds token id ${tokens[at]}, the vocabulary has ${vocabSize}.`, {
    hint: "Prepare the text again with this model's tokenizer.",
  });
}

function toRows(path: string, index: number, metadata: ShardMetadata, batch: RecordBatch): ShardRows {
  const {rows, rowsPerBatch, sequenceLength} = metadata;
  const wanted = Math.min(rowsPerBatch, rows - index * rowsPerBatch);
  if (batch.numRows !== wanted) throw damaged(path, `record batch ${index} has ${batch.numRows} rows, not ${wanted}`);
  const columns: Partial<Record<(typeof COLUMNS)[number], Int32Array>> = {};
  for (const name of COLUMNS) {
    const values: unknown = batch.getChild(name)?.data[0]?.children[0]?.values;
    if (values instanceof Int32Array && values.length >= wanted * (sequenceLength + 1)) columns[name] = values;
    else if (values !== undefined) throw damaged(path, `record batch ${index} is short of values`);
  }
  const {tokens, ...others} = columns;
  if (!tokens) throw damaged(path, `record batch ${index} has no tokens`);
  return {tokens, ...others};
}

function sliceRows(
  batch: ShardRows,
  {sequenceLength, rowsPerBatch}: ShardMetadata,
  begin: number,
  end: number,
): ShardRows {
  const width = sequenceLength + 1;
  const from = Math.max(0, begin) * width;
  const to = Math.min(rowsPerBatch, end) * width;
  return mapColumns(batch, (values) => values.slice(from, to));
}

function joinRows(parts: readonly ShardRows[]): ShardRows {
  const [first] = parts;
  if (!first || parts.length === 1) return first ?? {tokens: new Int32Array(0)};
  return mapColumns(first, (_, name) => concat(parts.flatMap((part) => part[name] ?? [])));
}

function mapColumns(rows: ShardRows, map: (values: Int32Array, name: keyof ShardRows) => Int32Array): ShardRows {
  return {
    tokens: map(rows.tokens, 'tokens'),
    ...(rows.segments && {segments: map(rows.segments, 'segments')}),
    ...(rows.mask && {mask: map(rows.mask, 'mask')}),
  };
}

function concat(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function damaged(path: string, what: string, cause?: unknown): DataError {
  if (cause instanceof DowncycleError) throw cause;
  return new DataError(`${path} is damaged: ${what}.`, {
    hint: 'Copy it again or make it again with `downcycle prepare`.',
    cause,
  });
}
