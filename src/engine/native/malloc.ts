// The GNU C library's `malloc`, which keeps what was freed; all of this does nothing where another library is used.
import {availableParallelism} from 'node:os';
import {koffi} from './koffi.js';

type Trim = ((pad: number) => number) & {async(pad: number, done: () => void): void};
type Mallopt = (parameter: number, value: number) => number;

/** Milliseconds between two trims. */
const INTERVAL = 500;

/** `M_MMAP_THRESHOLD` of malloc.h: blocks of so many bytes are taken from the system one by one, and go back when freed. */
const MMAP_THRESHOLD = -3;
const LARGE_BLOCK = 2 ** 20;
/** What the threshold rises to by itself, at most. */
const LARGEST_BLOCK = 2 ** 25;
/** `M_ARENA_MAX`: how many heaps threads share. */
const ARENA_MAX = -8;

const trim = find<Trim>('int malloc_trim(size_t)');
const mallopt = find<Mallopt>('int mallopt(int, int)');

/**
 * Has `malloc` make one heap for each core instead of eight, unless a person says otherwise: XLA compiles in many threads,
 * and leaves holes in the heap of each. For threads that have none yet.
 */
export function makeFewHeaps(env: NodeJS.ProcessEnv = process.env, set = mallopt): void {
  const {MALLOC_ARENA_MAX, GLIBC_TUNABLES = ''} = env;
  if (!MALLOC_ARENA_MAX && !GLIBC_TUNABLES.includes('arena_max')) set?.(ARENA_MAX, availableParallelism());
}

/** How many ask that large blocks go back. */
let asking = 0;

/**
 * Has large blocks, such as arrays of weights, go back to the system when they are freed, until what is returned is called,
 * unless a person says otherwise.
 *
 * Left alone the threshold rises to the largest block that was ever freed, up to 32 MB; such blocks then lie between small
 * ones that stay, and so stay with them. Work that asks for the same blocks over and over, as training, is faster so.
 */
export function returnLargeBlocks(env: NodeJS.ProcessEnv = process.env, set = mallopt): () => void {
  const {MALLOC_MMAP_THRESHOLD_, GLIBC_TUNABLES = ''} = env;
  if (MALLOC_MMAP_THRESHOLD_ || GLIBC_TUNABLES.includes('mmap_threshold')) return () => undefined;
  if (asking++ === 0) set?.(MMAP_THRESHOLD, LARGE_BLOCK);
  return () => {
    if (--asking === 0) set?.(MMAP_THRESHOLD, LARGEST_BLOCK);
  };
}

/**
 * Waits for `work`, which allocates and frees much, and meanwhile and in the end gives what it freed back to the system.
 *
 * The C library keeps freed memory for later. After XLA has compiled a large step that is half a gigabyte nobody uses
 * again, and the step's own buffers would come on top of it.
 */
export async function withTrimming<T>(work: Promise<T>): Promise<T> {
  let [last, isRunning] = [Promise.resolve(), false];
  const timer = setInterval(() => {
    if (isRunning) return;
    isRunning = true;
    last = trimHeaps().then(() => {
      isRunning = false;
    });
  }, INTERVAL);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    await last;
    await trimHeaps();
  }
}

/** Gives what was freed back to the system, in a thread of its own. */
export function trimHeaps(): Promise<void> {
  return new Promise((done) => {
    if (trim) trim.async(0, () => done());
    else done();
  });
}

function find<T>(declaration: string): T | null {
  try {
    return koffi.load('libc.so.6').func(declaration) as T;
  } catch {
    return null;
  }
}
