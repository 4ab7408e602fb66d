import {readdir, stat} from 'node:fs/promises';
import {extname, join} from 'node:path';
import {DataError} from '../util/errors.js';
import {readJsonl} from './jsonl.js';
import {readParquet} from './parquet.js';
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

/** The text files of a source, sorted by path. @throws DataError if there is none. */
export async function listSourceFiles(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => null);
  if (!found) throw new DataError(`${path} does not exist.`, {hint: 'Correct `path` of the source.'});
  if (!found.isDirectory()) return [path];
  const names = await readdir(path, {recursive: true});
  const files = names.filter((name) => kindOf(name) in READERS).sort();
  if (files.length === 0) throw new DataError(`${path} holds no file that is understood (${UNDERSTOOD}).`);
  return files.map((name) => join(path, name));
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
