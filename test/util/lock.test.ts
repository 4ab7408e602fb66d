import {spawnSync} from 'node:child_process';
import {existsSync} from 'node:fs';
import {mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile} from 'node:fs/promises';
import {hostname, tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {EnvironmentError} from '../../src/util/errors.js';
import {lockPath, refuseInUse, withLock} from '../../src/util/lock.js';

let root = '';
let folder = '';
const notes: string[] = [];
const locked = <T>(body: () => Promise<T>): Promise<T> => withLock(folder, (text) => notes.push(text), body);
const gone = spawnSync(process.execPath, ['-e', '']).pid;
const since = '2026-01-02T03:04:05.000Z';

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'downcycle-lock-'));
  folder = join(root, 'below', 'run');
  notes.length = 0;
});
afterEach(() => rm(root, {recursive: true}));

describe('a lock', () => {
  it('says beside the folder who holds it, and goes with the work', async () => {
    const result = await locked(async () => {
      const holder = JSON.parse(await readFile(join(root, 'below', '.run.lock'), 'utf8')) as unknown;
      expect(holder).toMatchObject({pid: process.pid, host: hostname()});
      return 7;
    });
    expect(result).toBe(7);
    expect(await readdir(join(root, 'below'))).toEqual([]);
  });

  it('goes when the work fails, too', async () => {
    await expect(locked(() => Promise.reject(new Error('failed')))).rejects.toThrow('failed');
    expect(existsSync(lockPath(folder))).toBe(false);
    expect(await readdir(root), 'what was made for it').toEqual([]);
  });

  it('leaves the folder above where something lies in it when the work fails', async () => {
    const work = locked(async () => {
      await writeFile(join(root, 'below', 'kept'), '');
      throw new Error('failed');
    });
    await expect(work).rejects.toThrow('failed');
    expect(await readdir(join(root, 'below'))).toEqual(['kept']);
  });

  it('of a process that is alive refuses whoever asks first', async () => {
    await mkdir(join(root, 'below'));
    await refuseInUse(folder);
    await writeFile(lockPath(folder), JSON.stringify({pid: process.ppid, host: hostname(), since}));
    await expect(refuseInUse(folder)).rejects.toThrow(`is in use: process ${process.ppid} on ${hostname()}, since`);
    await writeFile(lockPath(folder), JSON.stringify({pid: gone, host: hostname(), since}));
    await refuseInUse(folder);
  });

  it('lets nobody in a second time, however the folder is spelled', async () => {
    await locked(async () => {
      const again = withLock(
        `${folder}/../run/`,
        () => undefined,
        () => Promise.resolve(),
      );
      await expect(again).rejects.toBeInstanceOf(EnvironmentError);
      await expect(again).rejects.toThrow(`is in use: process ${process.pid} on ${hostname()}, since`);
    });
  });

  it.each([true, false])('is one for a folder and a link to it, the folder there: %s', async (isThere) => {
    await mkdir(isThere ? folder : join(root, 'below'), {recursive: true});
    const link = join(root, 'link');
    await symlink(isThere ? folder : join(root, 'below'), link);
    const linked = isThere ? link : join(link, 'run');
    await locked(() => expect(withLock(linked, String, () => Promise.resolve())).rejects.toThrow('is in use'));
    expect(lockPath(linked)).toBe(lockPath(folder));
  });

  it.each([
    [
      'a process that lives',
      () => JSON.stringify({pid: process.ppid, host: hostname(), since}),
      () => `process ${process.ppid} on ${hostname()}, since ${since}`,
    ],
    [
      'another host, where nobody can look',
      () => JSON.stringify({pid: gone, host: 'elsewhere', since}),
      () => `process ${gone} on elsewhere, since ${since}`,
    ],
    ['nobody can tell whom', () => 'a note', () => `another process, by ${lockPath(folder)}`],
  ])('of %s is left alone', async (_, text, who) => {
    await locked(() => Promise.resolve()); // makes the folder above
    await writeFile(lockPath(folder), text());
    const refused = locked(() => Promise.resolve());
    await expect(refused).rejects.toThrow(`${folder} is in use: ${who()}.`);
    await expect(refused).rejects.toMatchObject({
      hint: expect.stringContaining(`remove ${lockPath(folder)}`) as string,
    });
    expect(await readFile(lockPath(folder), 'utf8')).toBe(text());
  });

  it.each([
    ['a process that is gone', gone],
    ['a process of our own number before a restart', process.pid],
  ])('of %s is taken over by one alone, with a note', async (_, pid) => {
    await locked(() => Promise.resolve());
    await writeFile(lockPath(folder), JSON.stringify({pid, host: hostname(), since}));
    let inside = 0;
    const enter = (): Promise<void> =>
      locked(async () => {
        expect(++inside).toBe(1);
        await new Promise((resolve) => setTimeout(resolve, 50));
        inside--;
      });
    const ends = await Promise.allSettled([enter(), enter(), enter()]);
    expect(ends.filter(({status}) => status === 'fulfilled')).toHaveLength(1);
    expect(notes).toEqual([
      `process ${pid}, there since ${since}, left ${folder} without an end; going on in its place`,
    ]);
    expect(await readdir(join(root, 'below'))).toEqual([]);
  });

  it('that was made but not written, by a process that ended in between, is taken over after a moment', async () => {
    await locked(() => Promise.resolve());
    await writeFile(lockPath(folder), '');
    await locked(() => Promise.resolve());
    expect(notes).toEqual([
      `a process that ended before it said who it is left ${folder} without an end; going on in its place`,
    ]);
    await writeFile(lockPath(folder), '');
    const late = expect(
      locked(() => Promise.resolve()),
      'written in time',
    );
    const refused = late.rejects.toThrow(`is in use: process ${process.ppid} on`); // may come before the write ends
    await writeFile(lockPath(folder), JSON.stringify({pid: process.ppid, host: hostname(), since}));
    await refused;
  });
});
