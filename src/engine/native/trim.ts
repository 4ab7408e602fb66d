import koffi from 'koffi';

type Trim = ((pad: number) => number) & {async(pad: number, done: () => void): void};

/** Milliseconds between two trims. */
const INTERVAL = 500;

/** `malloc_trim` of the GNU C library, or null where another one is used. */
const trim = findTrim();

/**
 * Waits for `work`, which allocates and frees much, and meanwhile gives what it freed back to the system.
 *
 * The C library keeps freed memory for later. After XLA has compiled a large step that is half a gigabyte nobody uses
 * again, and the step's own buffers would come on top of it.
 */
export async function withTrimming<T>(work: Promise<T>): Promise<T> {
  if (!trim) return work;
  const start = trim.async.bind(trim);
  let isRunning = false;
  const timer = setInterval(() => {
    if (isRunning) return;
    isRunning = true;
    start(0, () => {
      isRunning = false;
    });
  }, INTERVAL);
  try {
    return await work;
  } finally {
    clearInterval(timer);
  }
}

function findTrim(): Trim | null {
  try {
    return koffi.load('libc.so.6').func('int malloc_trim(size_t)') as Trim;
  } catch {
    return null;
  }
}
