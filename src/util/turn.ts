import type {Stats} from 'node:fs';
import {link, open, readFile, rename, rm, stat, utimes} from 'node:fs/promises';
import {hostname} from 'node:os';
import {setTimeout as sleep} from 'node:timers/promises';
import {systemCode} from './errors.js';

export interface TurnOptions {
  /** Told once, if another process holds the lock, with its number. */
  readonly onWait?: (holder: number) => void;
  /** Milliseconds between two looks at a lock held by another process. */
  readonly poll?: number;
}

interface Holder {
  readonly pid: number;
  readonly host: string;
}

/** A holder touches its lock this often, in milliseconds ... */
const HEARTBEAT = 5_000;
/** ... so a lock untouched for so long has lost its holder, wherever that ran. */
const ABANDONED = 60_000;

/** Runs `body` while this process alone holds the lock file `path`; waits for another holder, and takes over from a dead one. */
export async function inTurn<T>(path: string, options: TurnOptions, body: () => Promise<T>): Promise<T> {
  await takeLock(path, options);
  const heartbeat = setInterval(() => void touch(path), HEARTBEAT).unref();
  try {
    return await body();
  } finally {
    clearInterval(heartbeat);
    if ((await readHolder(path))?.pid === process.pid) await rm(path, {force: true}); // else it was taken for abandoned
  }
}

async function takeLock(path: string, {onWait, poll = 500}: TurnOptions): Promise<void> {
  for (let hasTold = false; !(await createLock(path)); ) {
    const found = await stat(path).catch(() => null);
    if (!found) continue; // freed in this moment
    const holder = await readHolder(path);
    if (isAbandoned(found.mtimeMs, holder)) {
      await removeAbandoned(path, found);
      continue;
    }
    if (!hasTold && holder) onWait?.(holder.pid);
    hasTold = true;
    await sleep(poll);
  }
}

/** Moves the lock aside before it goes: another process may have replaced it since it was judged, and gets it back. */
async function removeAbandoned(path: string, judged: Stats): Promise<void> {
  const aside = `${path}.${process.pid}`;
  try {
    await rename(path, aside);
    const {ino, mtimeMs} = await stat(aside);
    if (ino !== judged.ino || mtimeMs !== judged.mtimeMs) await link(aside, path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT' && systemCode(error) !== 'EEXIST') throw error;
  } finally {
    await rm(aside, {force: true});
  }
}

async function createLock(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    await file.writeFile(JSON.stringify({pid: process.pid, host: hostname()} satisfies Holder));
    await file.close();
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

function isAbandoned(touched: number, holder: Holder | null): boolean {
  if (Date.now() - touched > ABANDONED) return true;
  // A lock without a holder is being written just now; one from another machine can only be judged by its age.
  return holder !== null && holder.host === hostname() && !isRunning(holder.pid);
}

async function readHolder(path: string): Promise<Holder | null> {
  try {
    const value: unknown = JSON.parse(await readFile(path, 'utf8'));
    const isHolder = typeof value === 'object' && value !== null && 'pid' in value && 'host' in value;
    if (!isHolder || typeof value.pid !== 'number' || typeof value.host !== 'string') return null;
    return {pid: value.pid, host: value.host};
  } catch {
    return null; // gone, or half-written
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM'; // it runs, as another user
  }
}

async function touch(path: string): Promise<void> {
  const now = new Date();
  await utimes(path, now, now).catch(() => {}); // a lost lock costs a second download, nothing else
}
