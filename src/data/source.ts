import {extname, resolve} from 'node:path';
import {DataError} from '../util/errors.js';
import {readJsonl, readJsonlRecords} from './jsonl.js';
import type {SampleFormat} from './options.js';
import {readColumns, readParquet, readParquetRecords} from './parquet.js';
import {findFiles, pathText, type SourcePath} from './path.js';
import {fieldsOf, type SourceRecord, textOf} from './record.js';
import {chatSample, formatOf, promptSample, SAMPLE_FIELDS, type Sample} from './sample.js';
import {readText} from './text.js';

/** Where documents come from. */
export interface Source {
  readonly name: string;
  /** Files, folders which are read with their subfolders, or globs. */
  readonly path: SourcePath;
  /** Field or column of the text; undefined: `text`, else `prompt` and `target`. */
  readonly field?: string | undefined;
}

const READERS: Readonly<Record<string, (path: string, field?: string) => AsyncGenerator<string>>> = {
  '.txt': readText,
  '.jsonl': readJsonl,
  '.parquet': readParquet,
};
const UNDERSTOOD = Object.keys(READERS).join(', ');
/** Those of files that hold records, with a field beside those of the text. */
const RECORD_READERS: Readonly<
  Record<string, (path: string, field: string | undefined, other: string) => AsyncGenerator<SourceRecord>>
> = {
  '.jsonl': (path) => readJsonlRecords(path),
  '.parquet': (path, field, other) => readParquetRecords(path, field, [other]),
};

/**
 * The documents of a source, one after the other, files in the order of their names; blank ones are left out.
 *
 * @throws DataError if there is no file, a file is damaged, or no document has text.
 */
export async function* readDocuments({name, path, field}: Source): AsyncGenerator<string> {
  let found = false;
  for (const file of await listSourceFiles(path)) {
    for await (const document of readerOf(file)(file, field)) {
      if (document.trim() === '') continue;
      found = true;
      yield document;
    }
  }
  if (!found)
    throw new DataError(`Source ${name}: ${pathText(path)} holds no text.`, {hint: 'Give a source that is not empty.'});
}

/**
 * The documents of a source that stand in records, with a field beside the text: those of its JSON Lines and parquet
 * files; blank ones are left out. None if the source has no such files.
 *
 * @throws DataError if a file is damaged.
 */
export async function* readRecords(
  {path, field}: Source,
  other: string,
): AsyncGenerator<SourceRecord & {text: string}> {
  for (const file of inOrder((await findFiles(path)).flatMap(({files}) => files))) {
    const read = RECORD_READERS[kindOf(file)];
    if (!read) continue;
    for await (const record of read(file, field, other)) {
      const text = textOf(record, field);
      if (text.trim() !== '') yield {...record, text};
    }
  }
}

/** The format of a source that does not say it: by the fields of its first record. @throws DataError if it is damaged. */
export async function detectFormat({path, field}: Source): Promise<SampleFormat> {
  if (field !== undefined) return 'text';
  for (const file of await listSourceFiles(path)) {
    const read = SAMPLE_READERS[kindOf(file)];
    if (!read) return 'text';
    for await (const record of read(file, ['text', ...Object.values(SAMPLE_FIELDS).flat()])) {
      return formatOf(Object.keys(fieldsOf(record)));
    }
  }
  return 'text';
}

/**
 * The documents of a source in the order of {@link readDocuments}, read as records of one format.
 *
 * @throws DataError if a file is damaged or holds no records, or a record has not the fields of the format.
 */
export async function* readSamples(source: Source, format: SampleFormat): AsyncGenerator<Sample> {
  if (format === 'text') {
    for await (const text of readDocuments(source)) yield {kind: 'text', text};
    return;
  }
  const {field, path} = source;
  const fields = format === 'chat' && field !== undefined ? [field, 'system'] : SAMPLE_FIELDS[format];
  for (const file of await listSourceFiles(path)) {
    const read = SAMPLE_READERS[kindOf(file)];
    if (!read) {
      throw new DataError(`${file}: holds no records, and the format of source ${source.name} is ${format}.`, {
        hint: 'Give .jsonl or .parquet files, or set `format: text`.',
      });
    }
    for await (const record of read(file, fields))
      yield format === 'chat' ? chatSample(record, field) : promptSample(record);
  }
}

/** Those of files that hold records, with the fields named as far as there are any. */
const SAMPLE_READERS: Readonly<
  Record<string, (path: string, fields: readonly string[]) => AsyncGenerator<SourceRecord>>
> = {
  '.jsonl': (path) => readJsonlRecords(path),
  '.parquet': (path, fields) =>
    readColumns(path, (found) => {
      const known = fields.filter((name) => found.includes(name));
      return known.length > 0 ? known : found;
    }),
};

/**
 * The text files of a source, sorted by path, each once; in folders and of globs those that are understood.
 *
 * @throws DataError if there is none, or a path is not there.
 */
export async function listSourceFiles(path: SourcePath): Promise<string[]> {
  const found = await findFiles(path);
  const files = found.flatMap(({files, isNamed}) =>
    isNamed ? files : files.filter((file) => kindOf(file) in READERS),
  );
  if (files.length === 0) throw new DataError(`${pathText(path)} holds no file that is understood (${UNDERSTOOD}).`);
  return inOrder(files);
}

/** Each file once, however it is spelled. */
function inOrder(files: readonly string[]): string[] {
  return [...new Map(files.toReversed().map((file) => [resolve(file), file])).values()].sort();
}

function readerOf(file: string): (path: string, field?: string) => AsyncGenerator<string> {
  const reader = READERS[kindOf(file)];
  if (!reader) {
    throw new DataError(`${file}: files of this kind are not understood.`, {
      hint: kindOf(file) === '.arrow' ? 'A shard is the only path of its source.' : `Understood are ${UNDERSTOOD}.`,
    });
  }
  return reader;
}

function kindOf(file: string): string {
  return extname(file).toLowerCase();
}
