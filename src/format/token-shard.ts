import {type FileHandle, open} from 'node:fs/promises';
import {type AsyncRecordBatchFileReader, type RecordBatch, RecordBatchReader} from 'apache-arrow';
import {DataError, systemCode} from '../util/errors.js';
import {
  checkBoundaries,
  checkColumns,
  checkExpected,
  checkTokens,
  damaged,
  refuseForeign,
  type ShardExpectation,
} from './token-shard-check.js';
import {parseShardMetadata, type ShardMetadata} from './token-shard-metadata.js';
import {COLUMNS, type ColumnName, joinRows, type ShardRows, sliceRows} from './token-shard-rows.js';

/** An open shard. Reads are ranged and cached a little; close it when done. */
export interface TokenShard {
  readonly path: string;
  readonly metadata: ShardMetadata;
  readonly rows: number;
  readonly columns: readonly ColumnName[];
  /** Rows `begin` to `end - 1`. @throws DataError if the file is damaged there or a token is outside the vocabulary. */
  readRows(begin: number, end: number): Promise<ShardRows>;
  close(): Promise<void>;
}

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
    checkBoundaries(path, reader, expected);
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
  const width = metadata.sequenceLength + 1;
  return {
    path,
    metadata,
    rows: metadata.rows,
    columns: COLUMNS.filter((name) => reader.schema.fields.some((field) => field.name === name)),
    readRows: async (begin, end) => {
      if (!(begin >= 0 && begin < end && end <= metadata.rows)) {
        throw new RangeError(`${path}: rows ${begin} to ${end} of ${metadata.rows}`);
      }
      const first = Math.floor(begin / metadata.rowsPerBatch);
      const last = Math.floor((end - 1) / metadata.rowsPerBatch);
      const parts: ShardRows[] = [];
      for (let index = first; index <= last; index++) {
        const before = index * metadata.rowsPerBatch;
        parts.push(sliceRows(await readBatch(index), width, Math.max(0, begin - before), end - before));
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

function toRows(path: string, index: number, metadata: ShardMetadata, batch: RecordBatch): ShardRows {
  const {rows, rowsPerBatch, sequenceLength} = metadata;
  const wanted = Math.min(rowsPerBatch, rows - index * rowsPerBatch);
  if (batch.numRows !== wanted) throw damaged(path, `record batch ${index} has ${batch.numRows} rows, not ${wanted}`);
  const numValues = wanted * (sequenceLength + 1);
  const columns: Partial<Record<ColumnName, Int32Array>> = {};
  for (const name of COLUMNS) {
    const values: unknown = batch.getChild(name)?.data[0]?.children[0]?.values;
    if (values instanceof Int32Array && values.length >= numValues) {
      columns[name] = values.subarray(0, numValues); // Arrow pads buffers to 8 bytes
    } else if (values !== undefined) throw damaged(path, `record batch ${index} is short of values`);
  }
  const {tokens, ...others} = columns;
  if (!tokens) throw damaged(path, `record batch ${index} has no tokens`);
  return {tokens, ...others};
}
