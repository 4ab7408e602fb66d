import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, describe, expect, it, vi} from 'vitest';
import {keepLessFreed, withTrimming} from '../../src/engine/native/malloc.js';

/** The timers that were started and not stopped again. */
function watchTimers(): () => number {
  const [started, stopped] = [vi.spyOn(globalThis, 'setInterval'), vi.spyOn(globalThis, 'clearInterval')];
  return () => started.mock.calls.length - stopped.mock.calls.length;
}

afterEach(() => vi.restoreAllMocks());

describe('keepLessFreed', () => {
  const set = (env: NodeJS.ProcessEnv): number[] => {
    const parameters: number[] = [];
    keepLessFreed(env, (parameter) => parameters.push(parameter));
    return parameters;
  };

  it('fixes the size of blocks that go back at once, and the number of heaps', () => {
    expect(set({})).toEqual([-3, -8]);
  });

  it("leaves a person's own settings alone", () => {
    expect(set({MALLOC_MMAP_THRESHOLD_: '131072'})).toEqual([-8]);
    expect(set({MALLOC_ARENA_MAX: '4'})).toEqual([-3]);
    expect(set({GLIBC_TUNABLES: 'glibc.malloc.mmap_threshold=131072:glibc.malloc.arena_max=1'})).toEqual([]);
  });
});

describe('withTrimming', () => {
  it('passes on what the work gives, and leaves no timer', async () => {
    const left = watchTimers();
    expect(await withTrimming(sleep(700, 'done'))).toBe('done');
    expect(left()).toBe(0);
  });

  it('passes on what the work throws, and leaves no timer', async () => {
    const left = watchTimers();
    const failing = (async () => {
      await sleep(10);
      throw new Error('did not compile');
    })();
    await expect(withTrimming(failing)).rejects.toThrow('did not compile');
    expect(left()).toBe(0);
  });
});
