import {readdir, stat} from 'node:fs/promises';
import {isAbsolute, join} from 'node:path';
import {glob, isDynamicPattern} from 'tinyglobby';
import {DataError} from '../util/errors.js';

/** A file, a folder, a glob such as `texts/*.jsonl`, or several of them. */
export type SourcePath = string | readonly string[];

/** Files found, and whether they were named one by one: then each must be understood. */
export interface FoundFiles {
  readonly files: readonly string[];
  readonly isNamed: boolean;
}

/** The path as a message says it. */
export function pathText(path: SourcePath): string {
  return typeof path === 'string' ? path : path.join(', ');
}

/** The first path that is not there, or glob that matches no file; null if all are there. */
export async function findMissing(path: SourcePath): Promise<string | null> {
  for (const entry of entriesOf(path)) if ((await find(entry)) === null) return entry;
  return null;
}

/**
 * The files of every path: a file alone, or all those in a folder or of a glob.
 *
 * @throws DataError naming the path that is not there, or the glob that matches no file.
 */
export async function findFiles(path: SourcePath): Promise<FoundFiles[]> {
  return Promise.all(
    entriesOf(path).map(async (entry) => {
      const found = await find(entry);
      if (found) return found;
      const isPattern = isDynamicPattern(entry);
      throw new DataError(`${entry} ${isPattern ? 'matches no file' : 'does not exist'}.`, {
        hint: `Correct the path${isPattern ? '; ** stands for any folders, * for any name' : ''}.`,
      });
    }),
  );
}

/** A path that exists is taken as it is, whatever signs are in it. */
async function find(entry: string): Promise<FoundFiles | null> {
  const found = await stat(entry).catch(() => null);
  if (found?.isDirectory()) {
    const names = await readdir(entry, {recursive: true});
    return {files: names.map((name) => join(entry, name)), isNamed: false};
  }
  if (found) return {files: [entry], isNamed: true};
  if (!isDynamicPattern(entry)) return null;
  const files = await glob(entry, {absolute: isAbsolute(entry), expandDirectories: false});
  return files.length > 0 ? {files, isNamed: false} : null;
}

function entriesOf(path: SourcePath): readonly string[] {
  return typeof path === 'string' ? [path] : path;
}
