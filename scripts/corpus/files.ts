import {readdir} from 'node:fs/promises';
import {join} from 'node:path';

/** Paths of all files under a folder that pass, sorted by code unit so that every machine sees one order. */
export async function filesUnder(folder: string, keep: (path: string) => boolean): Promise<string[]> {
  const found = await readdir(folder, {recursive: true, withFileTypes: true});
  return found
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter(keep)
    .sort();
}
