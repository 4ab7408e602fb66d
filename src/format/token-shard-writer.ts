import {type FileHandle, open, rename, rm} from 'node:fs/promises';
import {Field, FixedSizeList, Int32, makeData, RecordBatch, RecordBatchFileWriter, Schema, Struct} from 'apache-arrow';
import {asEnvironmentError, refuseExisting} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import {formatShardMetadata, SHARD_FORMAT_VERSION, type ShardMetadata} from './token-shard-metadata.js';
import {COLUMNS, type ColumnName, type ShardRows} from './token-shard-rows.js';

/** What is known of a shard before its rows are. */
export type ShardDescription = Pick<ShardMetadata, 'tokenizerSha256' | 'sequenceLength' | 'source' | 'licence'>;

/** Writes rows as they come; the file appears under its name only when it is whole. */
export interface TokenShardWriter {
  /** Takes one row of sequenceLength + 1 values a column. Every row must have the columns of the first. */
  append(row: ShardRows): Promise<void>;
  /** Completes the file. @throws DataError if no row was written; nothing is left then. */
  finish(documents: number): Promise<ShardMetadata>;
  /** Leaves nothing behind. */
  abort(): Promise<void>;
}

/** Values of one column in a record batch: 128 KiB, so that a random row costs one small read. */
const VALUES_PER_BATCH = 2 ** 15;

/**
 * Starts a shard at `path`.
 *
 * Memory is one record batch. @throws EnvironmentError if `path` exists or the disk is full.
 */
export async function createTokenShardWriter(path: string, description: ShardDescription): Promise<TokenShardWriter> {
  await refuseExisting(path);
  const part = `${path}.part-${process.pid}`;
  const file = await open(part, 'w').catch((error: unknown) => {
    throw asEnvironmentError(error, path);
  });
  const rows = createBatches(file, description);
  const abort = async (): Promise<void> => {
    await file.close();
    await rm(part, {force: true});
  };
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      await abort();
      throw asEnvironmentError(error, path);
    }
  };
  return {
    append: (row) => guarded(() => rows.append(row)),
    finish: (documents) =>
      guarded(async () => {
        const metadata = await rows.finish(documents);
        await file.sync();
        await refuseExisting(path);
        await rename(part, path);
        await file.close();
        return metadata;
      }),
    abort,
  };
}

function createBatches(file: FileHandle, description: ShardDescription) {
  const width = description.sequenceLength + 1;
  const rowsPerBatch = Math.max(1, Math.floor(VALUES_PER_BATCH / width));
  const encoder = new RecordBatchFileWriter();
  const encoded = encoder[Symbol.asyncIterator]();
  let first: RecordBatch | null = null;
  let pending: ShardRows[] = [];
  let rows = 0;

  const flush = async (): Promise<void> => {
    const batch = toRecordBatch(pending, width);
    first ??= batch;
    encoder.write(batch);
    pending = [];
    await drain(file, encoded, batch.schema.fields.length * batch.numRows * width * Int32Array.BYTES_PER_ELEMENT);
  };
  return {
    append: async (row: ShardRows): Promise<void> => {
      rows++;
      if (pending.push(row) === rowsPerBatch) await flush();
    },
    finish: async (documents: number): Promise<ShardMetadata> => {
      if (rows === 0) throw emptyShard(description, documents);
      const whole = {formatVersion: SHARD_FORMAT_VERSION, ...description, documents, rows, rowsPerBatch};
      if (pending.length > 0) await flush();
      // Counts are known only now; the encoder writes the schema last, in the footer, and it is that of the first batch.
      for (const [key, value] of formatShardMetadata(whole)) first?.schema.metadata.set(key, value);
      encoder.close();
      for (let chunk = await encoded.next(); !chunk.done; chunk = await encoded.next())
        await file.appendFile(chunk.value);
      return whole;
    },
  };
}

/** Writes at least `bytes` of what the encoder has queued, so that the queue never holds more than a batch. */
async function drain(file: FileHandle, encoded: AsyncIterator<Uint8Array>, bytes: number): Promise<void> {
  for (let left = bytes; left > 0; ) {
    const {value} = (await encoded.next()) as IteratorYieldResult<Uint8Array>;
    await file.appendFile(value);
    left -= value.byteLength;
  }
}

function toRecordBatch(rows: readonly ShardRows[], width: number): RecordBatch {
  const names = COLUMNS.filter((name) => rows[0]?.[name]);
  const type = new FixedSizeList(width, new Field('item', new Int32(), false));
  const schema = new Schema(names.map((name) => new Field(name, type, false)));
  const children = names.map((name) =>
    makeData({type, length: rows.length, child: makeData({type: new Int32(), data: column(rows, name, width)})}),
  );
  return new RecordBatch(schema, makeData({type: new Struct(schema.fields), length: rows.length, children}));
}

function column(rows: readonly ShardRows[], name: ColumnName, width: number): Int32Array {
  const values = new Int32Array(rows.length * width);
  rows.forEach((row, i) => {
    const source = row[name];
    if (source?.length !== width) throw new RangeError(`a row has ${source?.length} ${name}, expected ${width}`);
    values.set(source, i * width);
  });
  return values;
}

function emptyShard({sequenceLength, source}: ShardDescription, documents: number): DataError {
  const count = documents === 1 ? '1 document is' : `${documents} documents are`;
  const what = `${count} less than one row of ${sequenceLength + 1} tokens, the least a shard of ${source} holds.`;
  return new DataError(what, {hint: 'Give more text or lower data.sequenceLength.'});
}
