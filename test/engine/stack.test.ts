import {expect, it} from 'vitest';
import {koffi} from '../../src/engine/native/koffi.js';

const MIB = 2 ** 20;
/** Each level is one more call of glibc's parser: it overran 1 MiB in all. */
const LEVELS = 3000;

it('calls on worker threads have the stack of an ordinary thread: XLA compiles on it', async () => {
  expect(koffi.config()).toMatchObject({sync_stack_size: 8 * MIB, async_stack_size: 8 * MIB});
  const regcomp = koffi.load('libc.so.6').func('int regcomp(uint8_t* compiled, const char* pattern, int flags)');
  const pattern = `${'('.repeat(LEVELS)}a${')'.repeat(LEVELS)}`;
  const code = await new Promise((resolve, reject) => {
    const done = (error: unknown, result: unknown): void => (error ? reject(error as Error) : resolve(result));
    (regcomp as unknown as {async: (...args: unknown[]) => void}).async(Buffer.alloc(256), pattern, 1, done);
  });
  expect(code).toBe(0);
});
