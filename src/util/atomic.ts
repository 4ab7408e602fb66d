import {open, mkdir, rename, rm, stat} from 'node:fs/promises';
import {basename, dirname, join} from 'node:path';
import {DowncycleError, EnvironmentError, systemCode} from './errors.js';

/** Writes a file so that it is either whole or absent: beside it, synced, renamed. */
export async function writeFileAtomic(path: string, data: string | Uint8Array): Promise<void> {
  const part = `${path}.part-${process.pid}`;
  try {
    const file = await open(part, 'w');
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(part, {force: true});
    throw asEnvironmentError(error, path);
  }
}

/**
 * Makes a folder that is either whole or absent: `fill` writes into a hidden sibling which is then renamed.
 *
 * @throws EnvironmentError if `path` exists, or the disk is full or read-only; nothing is left behind then.
 */
export async function writeFolderAtomic<T>(path: string, fill: (part: string) => Promise<T>): Promise<T> {
  await refuseExisting(path);
  const part = join(dirname(path), `.${basename(path)}.part-${process.pid}`);
  try {
    await rm(part, {recursive: true, force: true});
    await mkdir(part, {recursive: true});
    const result = await fill(part);
    await syncFolder(part);
    await refuseExisting(path);
    await rename(part, path);
    await syncFolder(dirname(path));
    return result;
  } catch (error) {
    await rm(part, {recursive: true, force: true});
    throw asEnvironmentError(error, path);
  }
}

/** @throws EnvironmentError if something stands at `path`: outputs are never overwritten. */
export async function refuseExisting(path: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (!found) return;
  throw new EnvironmentError(`${path} already exists; downcycle never overwrites.`, {
    hint: 'Remove it or choose another output path.',
  });
}

/** The error of a failed write in words: full disk and missing rights become EnvironmentError, the rest stays. */
export function asEnvironmentError(error: unknown, path: string): unknown {
  if (error instanceof DowncycleError) return error;
  switch (systemCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new EnvironmentError(`${path}: no space left on the disk.`, {
        hint: 'Free some space or write elsewhere; nothing was left behind.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new EnvironmentError(`${path}: not allowed to write here.`, {
        hint: 'Choose an output folder you own.',
        cause: error,
      });
    default:
      return error;
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
