import {defineConfig} from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks', // tfjs keeps one engine a process; worker threads share it and break
    testTimeout: 60_000,
    hookTimeout: 60_000,
    setupFiles: ['test/support/matchers.ts'],
  },
});
