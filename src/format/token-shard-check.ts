import type {FileHandle} from 'node:fs/promises';
import {type AsyncRecordBatchFileReader, DataType} from 'apache-arrow';
import {DataError} from '../util/errors.js';
import type {ShardMetadata} from './token-shard-metadata.js';

const MAGIC = 'ARROW1';

/** What the reader of a shard needs it to be. */
export interface ShardExpectation {
  readonly sequenceLength?: number;
  readonly tokenizerSha256?: string;
  /** Ids at or above it are refused when they are read. */
  readonly vocabSize?: number;
  /** Whether it must hold `segments` (document boundaries kept) or must not. */
  readonly segments?: boolean;
}

/** Refuses what is no whole Arrow file. The library takes anything for a file and invents zeros past its end, so both ends are looked at first. */
export async function refuseForeign(path: string, file: FileHandle): Promise<void> {
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

/** Refuses other columns than ours, and a number of record batches that does not fit the metadata. */
export function checkColumns(path: string, reader: AsyncRecordBatchFileReader, metadata: ShardMetadata): void {
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

/** Refuses a shard of another sequence length or tokenizer than `expected`. */
export function checkExpected(path: string, metadata: ShardMetadata, expected: ShardExpectation): void {
  const {sequenceLength, tokenizerSha256} = expected;
  if (sequenceLength !== undefined && metadata.sequenceLength !== sequenceLength) {
    throw new DataError(
      `${path} is a shard of another sequence length: ${metadata.sequenceLength}, asked for ${sequenceLength}.`,
      {hint: `Set data.sequenceLength to ${metadata.sequenceLength} or prepare the text again.`},
    );
  }
  if (tokenizerSha256 !== undefined && metadata.tokenizerSha256 !== tokenizerSha256) {
    const [made, wanted] = [metadata.tokenizerSha256, tokenizerSha256].map((hash) => hash.slice(0, 12));
    throw new DataError(`${path} was made with another tokenizer: SHA-256 ${made}..., the model's is ${wanted}....`, {
      hint: "Prepare the text again with this model's tokenizer.",
    });
  }
}

/** Refuses a shard that keeps document boundaries where they are to be ignored, or the other way round. */
export function checkBoundaries(path: string, reader: AsyncRecordBatchFileReader, {segments}: ShardExpectation): void {
  const found = reader.schema.fields.some((field) => field.name === 'segments');
  if (segments === undefined || segments === found) return;
  throw new DataError(
    `${path} was packed with document boundaries ${found ? 'kept' : 'ignored'}, asked for ${segments ? 'kept' : 'ignored'}.`,
    {hint: `Set data.boundaries to ${found ? 'keep' : 'ignore'} or prepare the text again.`},
  );
}

/** Refuses token ids outside the vocabulary. @param firstRow the row of the shard that `tokens` begins with. */
export function checkTokens(
  path: string,
  firstRow: number,
  {sequenceLength}: ShardMetadata,
  tokens: Int32Array,
  vocabSize: number,
): void {
  let at = 0;
  while (at < tokens.length && isWithin(tokens[at] ?? 0, vocabSize)) at++; // every token of a run comes through here: no closure
  if (at === tokens.length) return;
  const row = firstRow + Math.floor(at / (sequenceLength + 1));
  throw new DataError(`${path}: row ${row} holds token id ${tokens[at]}, the vocabulary has ${vocabSize}.`, {
    hint: "Prepare the text again with this model's tokenizer.",
  });
}

/** The error of a shard whose parts contradict each other. */
export function damaged(path: string, what: string, cause?: unknown): DataError {
  return new DataError(`${path} is damaged: ${what}.`, {
    hint: 'Copy it again or make it again with `downcycle prepare`.',
    cause,
  });
}

function isWithin(id: number, vocabSize: number): boolean {
  return id >= 0 && id < vocabSize;
}
