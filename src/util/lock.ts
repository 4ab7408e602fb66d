// One process at a time in a folder: a hidden file beside it says who is there.
import {readFileSync, realpathSync, rmSync} from 'node:fs';
import {open, readFile, rename, rm} from 'node:fs/promises';
import {hostname} from 'node:os';
import {basename, dirname, join, resolve} from 'node:path';
import {setTimeout} from 'node:timers/promises';
import {z} from 'zod';
import {isAlive} from './alive.js';
import {asEnvironmentError, makeFolder, removeEmpty} from './atomic.js';
import {EnvironmentError, systemCode} from './errors.js';

const holderSchema = z.object({pid: z.int(), host: z.string(), since: z.string()});
type Holder = z.infer<typeof holderSchema>;

/** Locks of this process, with the text in each; one that ends in between, by a second Ctrl-C say, takes them away. */
const held = new Map<string, string>();
process.on('exit', () => {
  for (const path of held.keys()) removeOwn(path);
});

/** Path of the lock of a folder: `.name.lock` beside it, and beside what a link leads to, whichever name it is given. */
export function lockPath(folder: string): string {
  const path = realPath(resolve(folder));
  return join(dirname(path), `.${basename(path)}.lock`);
}

/** Without links, as far as the path is there. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path === dirname(path) ? path : join(realPath(dirname(path)), basename(path));
  }
}

/**
 * Runs `body` while no other process can do the same for `folder`, which need not exist.
 *
 * A lock whose process is gone from this host is taken over. @param onStale is told of that in words. Folders that had to
 * be made for the lock go again if `body` fails and nothing lies in them.
 * @throws EnvironmentError that names the holder, or if nothing can be written beside the folder.
 */
export async function withLock<T>(folder: string, onStale: (text: string) => void, body: () => Promise<T>): Promise<T> {
  const path = lockPath(folder);
  const text = JSON.stringify({pid: process.pid, host: hostname(), since: new Date().toISOString()});
  const own = held.get(path);
  if (own !== undefined) throw inUse(folder, path, parseHolder(own));
  held.set(path, text);
  let made: readonly string[] = [];
  try {
    made = await makeFolder(dirname(path));
    await take(folder, path, text, onStale);
    return await body();
  } catch (error) {
    removeOwn(path);
    await removeEmpty(made);
    throw error;
  } finally {
    removeOwn(path);
    held.delete(path);
  }
}

/** @throws EnvironmentError that names the process, if one that is alive works in `folder`. */
export async function refuseInUse(folder: string): Promise<void> {
  const path = lockPath(folder);
  const holder = parseHolder(await read(path));
  if (holder && !isGone(holder)) throw inUse(folder, path, holder);
}

async function take(folder: string, path: string, text: string, onStale: (text: string) => void): Promise<void> {
  if (await create(path, text)) return;
  const {found, who} = await goneHolder(folder, path);
  await setAside(path, found);
  if (!(await create(path, text))) throw inUse(folder, path, parseHolder(await read(path)));
  onStale(`${who} left ${folder} without an end; going on in its place`);
}

/** False if the file is there already. */
async function create(path: string, text: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    try {
      await file.writeFile(text);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw asEnvironmentError(error, path);
  }
}

/** Who held the lock, if that process is no more, and the text that says so. @throws EnvironmentError otherwise. */
async function goneHolder(folder: string, path: string): Promise<{readonly found: string; readonly who: string}> {
  let found = await read(path);
  if (found === '') {
    await setTimeout(GRACE); // made this moment, and not written yet
    found = await read(path);
  }
  if (found === '') return {found, who: 'a process that ended before it said who it is'};
  const holder = parseHolder(found);
  if (holder && isGone(holder)) return {found, who: `process ${holder.pid}, there since ${holder.since},`};
  throw inUse(folder, path, holder);
}

/** Milliseconds in which a lock that was made is written. */
const GRACE = 1000;

function read(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

function inUse(folder: string, path: string, holder: Holder | null): EnvironmentError {
  const who = holder ? `process ${holder.pid} on ${holder.host}, since ${holder.since}` : `another process, by ${path}`;
  return new EnvironmentError(`${folder} is in use: ${who}.`, {
    hint: `Wait for it or choose another folder; if no such process runs any more, remove ${path}.`,
  });
}

/** Two may find one stale lock: whoever moved away what is not what it read puts it back. */
async function setAside(path: string, found: string): Promise<void> {
  const aside = `${path}.${process.pid}`;
  const isMoved = await rename(path, aside).then(
    () => true,
    () => false,
  );
  if (!isMoved) return;
  if ((await readFile(aside, 'utf8')) === found) await rm(aside, {force: true});
  else await rename(aside, path);
}

/** On another host nobody can tell. Our own number is that of a process before us: what we hold ourselves is known. */
function isGone({pid, host}: Holder): boolean {
  return host === hostname() && (pid === process.pid || !isAlive(pid));
}

function parseHolder(text: string): Holder | null {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** Synchronous, for a process that is ending. A lock that someone put in place of ours stays. */
function removeOwn(path: string): void {
  try {
    if (readFileSync(path, 'utf8') === held.get(path)) rmSync(path);
  } catch {
    // Gone already: a person may have removed it.
  }
}
