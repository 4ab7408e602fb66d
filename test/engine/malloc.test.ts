import {availableParallelism} from 'node:os';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, describe, expect, it, vi} from 'vitest';
import {makeFewHeaps, returnLargeBlocks, withTrimming} from '../../src/engine/native/malloc.js';

/** The timers that were started and not stopped again. */
function watchTimers(): () => number {
  const [started, stopped] = [vi.spyOn(globalThis, 'setInterval'), vi.spyOn(globalThis, 'clearInterval')];
  return () => started.mock.calls.length - stopped.mock.calls.length;
}

afterEach(() => vi.restoreAllMocks());

/** Collects what is set: pairs of parameter and value. */
function recorder() {
  const calls: number[][] = [];
  return {calls, set: (...call: [number, number]) => calls.push(call)};
}

describe('makeFewHeaps', () => {
  it('makes as many as there are cores, unless a person says otherwise', () => {
    const {calls, set} = recorder();
    makeFewHeaps({}, set);
    makeFewHeaps({MALLOC_ARENA_MAX: '4'}, set);
    makeFewHeaps({GLIBC_TUNABLES: 'glibc.malloc.arena_max=1'}, set);
    expect(calls).toEqual([[-8, availableParallelism()]]);
  });
});

describe('returnLargeBlocks', () => {
  it('has blocks of 1 MB go back until the last one that asked is done', () => {
    const {calls, set} = recorder();
    const [one, other] = [returnLargeBlocks({}, set), returnLargeBlocks({}, set)];
    one();
    expect(calls).toEqual([[-3, 2 ** 20]]);
    other();
    expect(calls).toEqual([
      [-3, 2 ** 20],
      [-3, 2 ** 25],
    ]);
  });

  it("leaves a person's own setting alone", () => {
    const {calls, set} = recorder();
    returnLargeBlocks({MALLOC_MMAP_THRESHOLD_: '131072'}, set)();
    returnLargeBlocks({GLIBC_TUNABLES: 'glibc.malloc.mmap_threshold=131072'}, set)();
    expect(calls).toEqual([]);
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
