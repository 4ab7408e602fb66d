// XLA's compiled programs, kept between processes: a second start of the same work compiles nothing.
import {createHash} from 'node:crypto';
import {accessSync, constants, mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, statSync} from 'node:fs';
import {cpus} from 'node:os';
import {join} from 'node:path';
import {defaultCacheFolder} from '../library/cache.js';

/** The oldest programs go when all take more; a training step takes about one megabyte. */
const MOST_BYTES = 2 ** 30;
/** Nothing is kept on a disk with less room: TensorFlow gives up the call whose program it cannot write. */
const LEAST_FREE_BYTES = 2 ** 30;

/** What decides whether a program that was compiled once can be used. */
export interface ProgramMaker {
  /** TensorFlow's library. */
  readonly library: string;
  /** Threads inside one operation, as they were asked for. */
  readonly threads: number;
}

/**
 * The folder of the programs that `maker` compiles on this processor, made if it is not there; null where none are kept:
 * where a person set XLA's flags, the disk is nearly full or the folder cannot be written.
 */
export function programFolder(maker: ProgramMaker, env: NodeJS.ProcessEnv): string | null {
  try {
    const folder = join(defaultCacheFolder(env), 'programs', fingerprint(maker));
    const isSetByUs = (env.TF_XLA_FLAGS ?? programFlags(folder)) === programFlags(folder); // perhaps for a process above
    if (!isSetByUs || env.XLA_FLAGS !== undefined) return null;
    mkdirSync(folder, {recursive: true});
    accessSync(folder, constants.W_OK);
    const {bavail, bsize} = statfsSync(folder);
    if (bavail * bsize < LEAST_FREE_BYTES) return null;
    dropOldest(folder, MOST_BYTES);
    return folder;
  } catch {
    return null; // programs that are not kept are compiled again
  }
}

/** XLA's flags that keep programs of the processor in `folder`. */
export function programFlags(folder: string): string {
  return `--tf_xla_persistent_cache_directory=${folder} --tf_xla_persistent_cache_device_types=CPU`;
}

/** What TensorFlow 2.21 says of a file that is cut short, of another program, or damaged within. */
const DAMAGED = /Read less bytes than requested|Serialized cache key does not match|Failed to parse serialized/;

/** Empties the folder if a call failed for what is in it, or for the want of room; says whether it did. */
export function dropDamaged(folder: string | null, message: string): boolean {
  if (folder === null || !(DAMAGED.test(message) || message.includes(folder))) return false;
  for (const name of readdirSync(folder)) rmSync(join(folder, name), {force: true});
  return true;
}

/** Removes the files written first until the others take at most half of `mostBytes`, if they take more than that. */
function dropOldest(folder: string, mostBytes: number): void {
  const files = readdirSync(folder)
    .map((name) => ({path: join(folder, name), ...statOf(join(folder, name))}))
    .sort((a, b) => b.mtimeMs - a.mtimeMs);
  const total = files.reduce((sum, {size}) => sum + size, 0);
  if (total <= mostBytes) return;
  let kept = 0;
  for (const {path, size} of files) {
    kept += size;
    if (kept > mostBytes / 2) rmSync(path, {force: true});
  }
}

/** Of a file that another process may have removed meanwhile. */
function statOf(path: string): {size: number; mtimeMs: number} {
  const {size = 0, mtimeMs = 0} = statSync(path, {throwIfNoEntry: false}) ?? {};
  return {size, mtimeMs};
}

/** Programs hold instructions of one processor, and are cut for so many threads. */
function fingerprint({library, threads}: ProgramMaker): string {
  const {size, mtimeMs} = statSync(library);
  const words = {library, size, mtimeMs, threads, cores: cpus().length, processor: processor()};
  return createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 16);
}

/** Model and features of the first core. */
function processor(): string {
  const text = readFileSync('/proc/cpuinfo', 'utf8');
  return text.split('\n\n', 1)[0]?.replace(/^(cpu MHz|bogomips|processor|apicid|core id).*$/gim, '') ?? '';
}
