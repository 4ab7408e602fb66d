import {read} from 'node:fs';
import {type FileHandle, open} from 'node:fs/promises';
import {type AsyncRecordBatchFileReader, RecordBatchReader} from 'apache-arrow';
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
import {createLayout} from './token-shard-layout.js';
import {parseShardMetadata, type ShardMetadata} from './token-shard-metadata.js';
import {COLUMNS, type ColumnName, emptyRows, type ShardRows} from './token-shard-rows.js';

/** An open shard of which rows are read where they lie, without those beside them; close it when done. */
export interface TokenShard {
  readonly path: string;
  readonly metadata: ShardMetadata;
  readonly rows: number;
  readonly columns: readonly ColumnName[];
  /** Rows `begin` to `end - 1`. @throws DataError if the file is damaged there or a token is outside the vocabulary. */
  readRows(begin: number, end: number): Promise<ShardRows>;
  close(): Promise<void>;
}

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
    return createShard(path, file, reader, metadata, expected.vocabSize);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function createShard(
  path: string,
  file: FileHandle,
  reader: AsyncRecordBatchFileReader,
  metadata: ShardMetadata,
  vocabSize: number | undefined,
): TokenShard {
  const fields = reader.schema.fields.map(({name}) => name);
  const columns = COLUMNS.filter((name) => fields.includes(name));
  const findValues = createLayout(path, file, reader, metadata);
  const {rowsPerBatch} = metadata;
  const width = metadata.sequenceLength + 1;
  /** Fills in rows that lie in one record batch; `at` counts from the first row of `rows`. */
  const readPart = async (rows: ShardRows, at: number, begin: number, end: number): Promise<void> => {
    const batch = Math.floor(begin / rowsPerBatch);
    const begins = await findValues(batch);
    const skipped = (begin - batch * rowsPerBatch) * width * Int32Array.BYTES_PER_ELEMENT;
    const reads = columns.map((name) => {
      const values = rows[name]?.subarray(at * width, (at + end - begin) * width) ?? new Int32Array(0);
      return readValues(path, file, values, (begins[fields.indexOf(name)] ?? 0) + skipped, begin);
    });
    await Promise.all(reads);
  };
  return {
    path,
    metadata,
    rows: metadata.rows,
    columns,
    readRows: async (begin, end) => {
      if (!(begin >= 0 && begin < end && end <= metadata.rows)) {
        throw new RangeError(`${path}: rows ${begin} to ${end} of ${metadata.rows}`);
      }
      const rows = emptyRows(columns, (end - begin) * width);
      for (let from = begin; from < end; ) {
        const to = Math.min(end, (Math.floor(from / rowsPerBatch) + 1) * rowsPerBatch);
        await readPart(rows, from - begin, from, to);
        from = to;
      }
      if (vocabSize !== undefined) checkTokens(path, begin, metadata, rows.tokens, vocabSize);
      return rows;
    },
    close: () => file.close(),
  };
}

/** Fills `values` from a place in the file. @param row the first of those read, for the error. */
async function readValues(
  path: string,
  file: FileHandle,
  values: Int32Array,
  position: number,
  row: number,
): Promise<void> {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  for (let done = 0; done < bytes.length; ) {
    const bytesRead = await readBytes(file.fd, bytes, done, position + done).catch((cause: unknown) => {
      throw damaged(path, `row ${row} cannot be read`, cause);
    });
    if (bytesRead === 0) throw damaged(path, `row ${row} lies beyond its end; it was cut after it was opened`);
    done += bytesRead;
  }
}

/** As `FileHandle.read`, whose own work is most of a small read. One under way when the file is closed comes to nothing. */
function readBytes(descriptor: number, bytes: Uint8Array, done: number, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    read(descriptor, bytes, done, bytes.length - done, position, (error, bytesRead) => {
      if (error) reject(error);
      else resolve(bytesRead);
    });
  });
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
