import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, describe, expect, it, vi} from 'vitest';
import {withTrimming} from '../../src/engine/native/malloc.js';

/** The timers that were started and not stopped again. */
function watchTimers(): () => number {
  const [started, stopped] = [vi.spyOn(globalThis, 'setInterval'), vi.spyOn(globalThis, 'clearInterval')];
  return () => started.mock.calls.length - stopped.mock.calls.length;
}

afterEach(() => vi.restoreAllMocks());

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
