import {readdir, rename, rm} from 'node:fs/promises';
import {basename, dirname, join, resolve} from 'node:path';
import {asEnvironmentError, writeFolderAtomic} from '../util/atomic.js';
import {EnvironmentError, systemCode} from '../util/errors.js';

/**
 * Makes a folder as `writeFolderAtomic` does, and puts it in the place of an older one if there is one.
 *
 * The old folder stays until the new one is whole; it is replaced only if it holds nothing but files named in `ours`.
 * @throws EnvironmentError if something else stands there; it is left untouched then, as it is if `fill` fails.
 */
export async function replaceFolder<T>(
  path: string,
  ours: readonly string[],
  fill: (part: string) => Promise<T>,
): Promise<T> {
  const whole = resolve(path);
  const found = await foundAt(whole);
  if (found === null) return writeFolderAtomic(whole, fill);
  refuseForeign(path, found, ours);
  const next = join(dirname(whole), `.${basename(whole)}.next-${process.pid}`);
  await rm(next, {recursive: true, force: true});
  const result = await writeFolderAtomic(next, fill);
  await swap(whole, next).catch(async (error: unknown) => {
    await rm(next, {recursive: true, force: true});
    throw asEnvironmentError(error, path);
  });
  return result;
}

/** Two renames: a folder cannot be renamed onto a full one. If the second fails the first is taken back. */
async function swap(path: string, next: string): Promise<void> {
  const old = join(dirname(path), `.${basename(path)}.old-${process.pid}`);
  await rename(path, old);
  await rename(next, path).catch(async (error: unknown) => {
    await rename(old, path);
    throw error;
  });
  await rm(old, {recursive: true, force: true});
}

/** The names in the folder at `path`, null if nothing is there, undefined if it is no folder. */
async function foundAt(path: string): Promise<string[] | null | undefined> {
  try {
    return await readdir(path);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    if (systemCode(error) === 'ENOTDIR') return undefined;
    throw asEnvironmentError(error, path);
  }
}

function refuseForeign(path: string, found: readonly string[] | undefined, ours: readonly string[]): void {
  const foreign = found?.find((name) => !ours.includes(name));
  if (found && foreign === undefined) return;
  const what = foreign === undefined ? 'is a file' : `holds ${foreign}, which is not part of a report`;
  throw new EnvironmentError(`${path} ${what}; it is not replaced.`, {hint: 'Choose another folder for the report.'});
}
