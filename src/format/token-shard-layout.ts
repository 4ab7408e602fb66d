import type {FileHandle} from 'node:fs/promises';
import {type AsyncRecordBatchFileReader, MessageHeader, MessageReader} from 'apache-arrow';
import {damaged} from './token-shard-check.js';
import type {ShardMetadata} from './token-shard-metadata.js';

/** Where the values of a record batch's columns begin in the file, in bytes, column after column. */
export type FindValues = (batch: number) => Promise<Float64Array>;

/** Arrow buffers of a FixedSizeList column: its validity, its items' validity, its values. */
const BUFFERS_PER_COLUMN = 3;
const VALUES = 2;

/**
 * Finds values by the small header of a record batch, so that a row is read without the rows beside it.
 *
 * What was found is kept: 8 bytes a column for a record batch of usually 128 KiB.
 * @throws DataError where a header is damaged or says other rows than the metadata.
 */
export function createLayout(
  path: string,
  file: FileHandle,
  reader: AsyncRecordBatchFileReader,
  metadata: ShardMetadata,
): FindValues {
  const numColumns = reader.schema.fields.length;
  const found = new Float64Array(reader.numRecordBatches * numColumns); // 0: not yet, for there the magic word stands
  return async (batch) => {
    const begins = found.subarray(batch * numColumns, (batch + 1) * numColumns);
    if (begins[0] === 0) begins.set(await readHeader(path, file, reader, metadata, batch));
    return begins;
  };
}

async function readHeader(
  path: string,
  file: FileHandle,
  reader: AsyncRecordBatchFileReader,
  {rows, rowsPerBatch, sequenceLength}: ShardMetadata,
  batch: number,
): Promise<number[]> {
  const what = `record batch ${batch} (from row ${batch * rowsPerBatch})`;
  const block = reader.footer?.getRecordBatch(batch);
  if (!block) throw damaged(path, `${what} is missing`);
  const {offset, metaDataLength, bodyLength} = block;
  const header = await parseHeader(file, offset, metaDataLength).catch((cause: unknown) => {
    throw damaged(path, `${what} cannot be read`, cause);
  });
  const wanted = Math.min(rowsPerBatch, rows - batch * rowsPerBatch);
  if (header.length !== wanted) throw damaged(path, `${what} has ${header.length} rows, not ${wanted}`);
  if (header.compression) throw damaged(path, `${what} is compressed, which shards are not`);
  const numBytes = wanted * (sequenceLength + 1) * Int32Array.BYTES_PER_ELEMENT;
  return reader.schema.fields.map((_, column) => {
    const values = header.buffers[BUFFERS_PER_COLUMN * column + VALUES];
    if (values && values.length >= numBytes && values.offset + numBytes <= bodyLength) {
      return offset + metaDataLength + values.offset;
    }
    throw damaged(path, `${what} is short of values`);
  });
}

async function parseHeader(file: FileHandle, offset: number, length: number) {
  const bytes = new Uint8Array(length);
  await file.read(bytes, 0, length, offset);
  const message = new MessageReader(bytes).readMessage(MessageHeader.RecordBatch);
  if (message?.isRecordBatch()) return message.header();
  throw new Error('no record batch begins here');
}
