import {readdir, realpath, stat} from 'node:fs/promises';
import {join, relative, sep} from 'node:path';
import {ModelError, systemCode} from '../util/errors.js';

/** A snapshot in a cache of Hugging Face, or a folder in one; what is kept of the same model. */
const CACHED = /^(.*\/models--[^/]+)\/snapshots\/[^/]+(?:\/|$)/;

/**
 * Refuses a model folder where something else stands in place of a file, or a link that leads out of it: what another process or
 * person keeps there would be read, and with the tokenizer's files copied into what is made of the model. In a cache of Hugging
 * Face links lead to the blobs of the same model.
 *
 * @param isRead whether a file of that name is read; whatever else lies there is nobody's business.
 * @throws ModelError naming what stands there.
 */
export async function requirePlainFiles(folder: string, isRead: (name: string) => boolean): Promise<void> {
  const home = await realpath(folder).catch(() => folder);
  const root = CACHED.exec(home)?.[1] ?? home;
  const entries = await readdir(home, {withFileTypes: true}).catch(() => []); // whoever reads it says that there is no folder
  for (const entry of entries) {
    if (!isRead(entry.name)) continue;
    const path = join(folder, entry.name);
    if (entry.isSymbolicLink()) await requireInside(path, root);
    const found = await stat(path);
    if (found.isFile()) continue;
    throw new ModelError(`${path} is ${found.isDirectory() ? 'a folder' : 'no regular file'}; a file is needed.`);
  }
}

async function requireInside(link: string, root: string): Promise<void> {
  const target = await realpath(link).catch((cause: unknown) => {
    const where = systemCode(cause) === 'ELOOP' ? 'in a circle' : 'to something that is not there';
    throw new ModelError(`${link} is a link that leads ${where}.`, {hint: 'Put the file in its place.', cause});
  });
  if (isWithin(target, root)) return;
  throw new ModelError(`${link} is a link that leads out of the folder, to ${target}.`, {
    hint: 'Copy the file into the folder, or give the folder that it lies in.',
  });
}

function isWithin(path: string, folder: string): boolean {
  const [first] = relative(folder, path).split(sep);
  return first !== '..' && first !== '';
}
