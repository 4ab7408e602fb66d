import {
  asyncBufferFromFile,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from 'hyparquet';
import {compressors} from 'hyparquet-compressors';
import {DataError} from '../util/errors.js';
import {type SourceRecord, textOf} from './record.js';

/**
 * The documents of a parquet file, one a row; a row group is in memory at a time.
 *
 * @throws DataError if the file is no parquet, lacks the column, or a row's text is no string.
 */
export async function* readParquet(path: string, field?: string): AsyncGenerator<string> {
  for await (const record of readParquetRecords(path, field)) yield textOf(record, field);
}

/** The same as records, with the columns of the text and `others`. @throws DataError as it does. */
export function readParquetRecords(
  path: string,
  field?: string,
  others: readonly string[] = [],
): AsyncGenerator<SourceRecord> {
  return readColumns(path, (found) => [
    ...textColumns(path, found, field),
    ...others.filter((name) => found.includes(name)),
  ]);
}

/** The rows as records with those columns that `choose` picks. @throws DataError if the file is no parquet. */
export async function* readColumns(
  path: string,
  choose: (found: readonly string[]) => readonly string[],
): AsyncGenerator<SourceRecord> {
  const {file, metadata} = await openParquet(path);
  const columns = [...choose(columnsOf(metadata))];
  let rowStart = 0;
  for (const group of metadata.row_groups) {
    const rowEnd = rowStart + Number(group.num_rows);
    const rows = await parquetReadObjects({file, metadata, columns, rowStart, rowEnd, compressors}).catch(
      (error: unknown) => throwDamaged(path, error),
    );
    for (const [i, value] of rows.entries()) yield {where: `${path}: row ${rowStart + i}`, value};
    rowStart = rowEnd;
  }
}

async function openParquet(path: string) {
  try {
    const file = await asyncBufferFromFile(path);
    return {file, metadata: await parquetMetadataAsync(file)};
  } catch (error) {
    throwDamaged(path, error);
  }
}

function columnsOf(metadata: FileMetaData): string[] {
  return parquetSchema(metadata).children.map((child) => child.element.name);
}

function textColumns(path: string, columns: readonly string[], field: string | undefined): string[] {
  const wanted = field !== undefined ? [field] : columns.includes('text') ? ['text'] : ['prompt', 'target'];
  if (wanted.every((name) => columns.includes(name))) return wanted;
  throw new DataError(`${path} has no column \`${field ?? 'text'}\`; its columns: ${columns.join(', ')}.`, {
    hint: 'In a config `field` of the source names the column of the text; elsewhere it is `text`.',
  });
}

function throwDamaged(path: string, cause: unknown): never {
  const reason = cause instanceof Error ? cause.message : String(cause);
  throw new DataError(`${path} cannot be read as parquet: ${reason}.`, {hint: 'Copy it again.', cause});
}
