import {rmSync} from 'node:fs';
import {lstat, mkdir, open, readdir, rename, rm, rmdir, stat} from 'node:fs/promises';
import {basename, dirname, join, resolve} from 'node:path';
import {isAlive} from './alive.js';
import {DowncycleError, EnvironmentError, systemCode} from './errors.js';

/** What is being written now; a process that ends in between, by Ctrl-C say, takes it away. */
const unfinished = new Set<string>();
process.on('exit', () => {
  for (const part of unfinished) rmSync(part, {recursive: true, force: true});
});

/** What a file is made of. */
type FileContent = string | Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

/**
 * Writes a file so that it is either whole or absent: beside it, synced, renamed. Folders above it are made.
 *
 * @param data its content, or the parts of it one after another, which may be made as they are asked for.
 */
export async function writeFileAtomic(path: string, data: FileContent): Promise<void> {
  const part = `${path}.part-${process.pid}`;
  await makeFolder(dirname(path));
  unfinished.add(part);
  try {
    const file = await open(part, 'w').catch((cause: unknown) => {
      if (systemCode(cause) !== 'ENOENT') throw cause; // the folder is there: it takes no files, as /proc
      throw new EnvironmentError(`${path}: no file can be made here.`, {hint: ELSEWHERE, cause});
    });
    try {
      if (typeof data === 'string' || data instanceof Uint8Array) await file.writeFile(data);
      else for await (const part of data) await file.appendFile(part);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(part, {force: true});
    throw asEnvironmentError(error, path);
  } finally {
    unfinished.delete(part);
  }
}

/**
 * Makes a folder that is either whole or absent: `fill` writes into a hidden sibling which is then renamed.
 *
 * @throws EnvironmentError if `path` exists, or the disk is full or read-only; nothing is left behind then.
 */
export function writeFolderAtomic<T>(path: string, fill: (part: string) => Promise<T>): Promise<T> {
  return makeAtomic(path, async (part) => {
    await makeFolder(part);
    return fill(part);
  });
}

/**
 * As {@link writeFolderAtomic}, but `make` creates the hidden folder, too: work that goes on once the folder is there.
 *
 * Inside of it, what is made at the hidden path is made in place.
 */
export async function makeAtomic<T>(path: string, make: (part: string) => Promise<T>): Promise<T> {
  if (unfinished.has(path)) return make(path);
  await refuseExisting(path);
  const part = hiddenPart(path);
  const made = await makeFolder(dirname(path));
  await removeAbandoned(path);
  unfinished.add(part);
  try {
    await rm(part, {recursive: true, force: true});
    const result = await make(part);
    await syncFolder(part);
    await refuseExisting(path);
    await rename(part, path);
    await syncFolder(dirname(path));
    return result;
  } catch (error) {
    await rm(part, {recursive: true, force: true});
    await removeEmpty(made);
    throw inWordsOf(path, part, error);
  } finally {
    unfinished.delete(part);
  }
}

/**
 * A hidden folder beside `path` for parts of what is being made there, of this process alone.
 *
 * It goes with {@link removeScratch}, or when the process ends; that of a killed one goes when the next one asks for its own.
 */
export async function scratchBeside(path: string): Promise<string> {
  const part = hiddenPart(path);
  if (unfinished.has(part)) return part;
  await makeFolder(dirname(path));
  await removeAbandoned(path);
  unfinished.add(part);
  await rm(part, {recursive: true, force: true});
  await makeFolder(part);
  return part;
}

/** Removes the folder of {@link scratchBeside}, if there is one. */
export async function removeScratch(path: string): Promise<void> {
  const part = hiddenPart(path);
  await rm(part, {recursive: true, force: true});
  unfinished.delete(part);
}

function hiddenPart(path: string): string {
  return join(dirname(path), `.${basename(path)}.part-${process.pid}`);
}

/** Removes what processes that were killed left of the same path. */
async function removeAbandoned(path: string): Promise<void> {
  const [folder, start] = [dirname(path), `.${basename(path)}.part-`];
  for (const name of await readdir(folder).catch(() => [])) {
    const pid = name.startsWith(start) ? name.slice(start.length) : '';
    if (!/^\d+$/.test(pid) || isAlive(Number(pid))) continue;
    await rm(join(folder, name), {recursive: true, force: true});
  }
}

/** An error of making `path`, without the hidden folder, which nobody asked for; one of other files stays as it is. */
function inWordsOf(path: string, part: string, error: unknown): unknown {
  if (error instanceof DowncycleError) error.message = error.message.replaceAll(part, path);
  const at = error instanceof Error && 'path' in error && typeof error.path === 'string' ? error.path : part;
  return at === dirname(path) || at.startsWith(part) ? asEnvironmentError(error, path) : error;
}

/**
 * Makes a folder and those above it that are missing. Returns those that were, the outermost first.
 *
 * One by one: Node's own `recursive` never returns where a system has no room for folders, as under /proc.
 * @throws EnvironmentError if one cannot be made.
 */
export async function makeFolder(path: string): Promise<string[]> {
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) return [];
  if (found) throw new EnvironmentError(`${path} is a file; a folder was to be made there.`, {hint: ELSEWHERE});
  const above = await makeFolder(dirname(path));
  try {
    await mkdir(path);
    return [...above, path];
  } catch (cause) {
    switch (systemCode(cause)) {
      case 'EEXIST': // another process was quicker
        return above;
      case 'ENOENT':
        throw new EnvironmentError(`${path}: no folder can be made here.`, {hint: ELSEWHERE, cause});
      default:
        throw asEnvironmentError(cause, path);
    }
  }
}

/** Takes away what {@link makeFolder} made, for work that came to nothing; a folder that holds something stays. */
export async function removeEmpty(made: readonly string[]): Promise<void> {
  for (const folder of made.toReversed()) await rmdir(folder).catch(() => undefined);
}

const ELSEWHERE = 'Choose another output path.';

/** Bytes that a file system allows a name, minus what the names of hidden siblings add. */
const MOST_NAME_BYTES = 255 - '..partial.part-4194304'.length;

/**
 * @throws EnvironmentError if something stands at `path`, be it a link to nothing, for outputs are never overwritten, if it
 * would be inside a file, or has no name or too long a one.
 */
export async function refuseExisting(path: string): Promise<void> {
  if (unfinished.has(path)) return; // the hidden folder of what has been looked at
  const name = basename(path);
  if (path === '') throw new EnvironmentError('The output path is empty.', {hint: ELSEWHERE});
  if (Buffer.byteLength(name) > MOST_NAME_BYTES) {
    throw new EnvironmentError(
      `${name.slice(0, 40)}...: an output name of ${Buffer.byteLength(name)} bytes is too long.`,
      {hint: `Choose one of at most ${MOST_NAME_BYTES}.`},
    );
  }
  const found = await lstat(resolve(path)).catch((cause: unknown) => {
    if (systemCode(cause) !== 'ENOTDIR') return null;
    throw new EnvironmentError(`${path} cannot be made: what it would lie in is a file.`, {hint: ELSEWHERE, cause});
  });
  if (!found) return;
  throw new EnvironmentError(`${path} already exists; downcycle never overwrites.`, {
    hint: 'Remove it or choose another output path.',
  });
}

/** The error of a failed write in words: full or broken disks and missing rights become EnvironmentError, the rest stays. */
export function asEnvironmentError(error: unknown, path: string): unknown {
  if (error instanceof DowncycleError) return error;
  switch (systemCode(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return new EnvironmentError(`${path}: no space left on the disk.`, {
        hint: 'Free some space or write elsewhere; nothing was left behind.',
        cause: error,
      });
    case 'EFBIG':
      return new EnvironmentError(`${path}: a file grew larger than this disk or the limit of the process allows.`, {
        hint: 'Write to another disk, or raise the limit (ulimit -f); nothing was left behind.',
        cause: error,
      });
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new EnvironmentError(`${path}: not allowed to write here.`, {
        hint: 'Choose an output folder you own.',
        cause: error,
      });
    case 'EISDIR':
      return new EnvironmentError(`${path} is a folder; a file was to be there.`, {hint: ELSEWHERE, cause: error});
    case 'EIO':
      return new EnvironmentError(`${path}: the disk failed to read or write.`, {
        hint: 'Check the disk, or write to another.',
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
