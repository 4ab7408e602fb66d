/** Milliseconds between two looks at the memory. */
const INTERVAL = 20;

/** Runs something and says how long it took and the most memory (resident, bytes) the process held meanwhile. */
export async function withPeakMemory<T>(
  run: () => Promise<T>,
): Promise<{readonly result: T; readonly seconds: number; readonly peakBytes: number}> {
  const start = performance.now();
  let peakBytes = process.memoryUsage.rss();
  const look = (): void => {
    peakBytes = Math.max(peakBytes, process.memoryUsage.rss());
  };
  const timer = setInterval(look, INTERVAL);
  try {
    const result = await run();
    look();
    return {result, seconds: (performance.now() - start) / 1000, peakBytes};
  } finally {
    clearInterval(timer);
  }
}
