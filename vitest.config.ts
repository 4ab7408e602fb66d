import {defineConfig} from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks', // tfjs keeps one engine a process; worker threads share it and break
    maxWorkers: '100%',
    // Tests are many small steps: two files at a time with a thread each are half as fast again as one with all threads.
    env: {TF_NUM_INTRAOP_THREADS: '1', TF_NUM_INTEROP_THREADS: '1', TF_XLA_FLAGS: process.env.TF_XLA_FLAGS ?? ''},
    testTimeout: 60_000,
    hookTimeout: 60_000,
    setupFiles: ['test/support/matchers.ts'],
  },
});
