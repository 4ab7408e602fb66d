import {spawnSync} from 'node:child_process';
import {existsSync, mkdtempSync, rmSync, utimesSync, writeFileSync} from 'node:fs';
import {hostname, tmpdir} from 'node:os';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {inTurn} from '../../src/util/turn.js';

let root: string;
let path: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'downcycle-lock-'));
  path = join(root, 'lock');
});
afterEach(() => rmSync(root, {recursive: true, force: true}));

describe('inTurn', () => {
  it('lets one body run at a time and leaves no file', async () => {
    let running = 0;
    let most = 0;
    const body = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await sleep(5);
      running--;
    };
    await Promise.all(Array.from({length: 8}, () => inTurn(path, {poll: 1}, body)));
    expect(most).toBe(1);
    expect(existsSync(path)).toBe(false);
  });

  it('frees the lock when the body fails', async () => {
    await expect(inTurn(path, {}, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(existsSync(path)).toBe(false);
  });

  it('takes over at once from a process that died', async () => {
    const {pid} = spawnSync('true');
    writeFileSync(path, JSON.stringify({pid, host: hostname()}));
    expect(await inTurn(path, {poll: 60_000}, () => Promise.resolve(1))).toBe(1);
  });

  it('takes over from another machine, or a torn lock, only once it is old', async () => {
    for (const text of [JSON.stringify({pid: 1, host: 'elsewhere'}), '{"pi']) {
      writeFileSync(path, text);
      let isDone = false;
      const done = inTurn(path, {poll: 1}, async () => {
        isDone = true;
      });
      await sleep(30);
      expect(isDone).toBe(false);
      utimesSync(path, 0, 0);
      await done;
    }
  });
});
