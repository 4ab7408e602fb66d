import {readdir, stat} from 'node:fs/promises';
import {extname, join} from 'node:path';
import {DataError} from '../util/errors.js';
import {readJsonl, readJsonlRecords} from './jsonl.js';
import {readParquet, readParquetRecords} from './parquet.js';
import {type SourceRecord, textOf} from './record.js';
import {readText} from './text.js';

/** Where documents come from. */
export interface Source {
  readonly name: string;
  /** A file, or a folder which is read with its subfolders. */
  readonly path: string;
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
  if (!found) throw new DataError(`Source ${name}: ${path} holds no text.`, {hint: 'Give a source that is not empty.'});
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
  for (const file of await listFiles(path)) {
    const read = RECORD_READERS[kindOf(file)];
    if (!read) continue;
    for await (const record of read(file, field, other)) {
      const text = textOf(record, field);
      if (text.trim() !== '') yield {...record, text};
    }
  }
}

/** The text files of a source, sorted by path. @throws DataError if there is none. */
export async function listSourceFiles(path: string): Promise<string[]> {
  const all = await listFiles(path);
  if (all.length === 1 && all[0] === path) return all;
  const files = all.filter((name) => kindOf(name) in READERS);
  if (files.length === 0) throw new DataError(`${path} holds no file that is understood (${UNDERSTOOD}).`);
  return files;
}

/** A file alone, or all files in a folder, sorted by path. */
async function listFiles(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => null);
  if (!found) throw new DataError(`${path} does not exist.`, {hint: 'Correct `path` of the source.'});
  if (!found.isDirectory()) return [path];
  return (await readdir(path, {recursive: true})).sort().map((name) => join(path, name));
}

function readerOf(file: string): (path: string, field?: string) => AsyncGenerator<string> {
  const reader = READERS[kindOf(file)];
  if (!reader) {
    throw new DataError(`${file}: files of this kind are not understood.`, {hint: `Understood are ${UNDERSTOOD}.`});
  }
  return reader;
}

function kindOf(file: string): string {
  return extname(file).toLowerCase();
}
