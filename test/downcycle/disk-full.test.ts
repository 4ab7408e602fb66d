import type * as fs from 'node:fs/promises';
import {mkdir, readdir, readFile, writeFile} from 'node:fs/promises';
import {beforeEach, describe, expect, it, vi} from 'vitest';
import {convert} from '../../src/downcycle/convert.js';
import {readProfile, writeProfile} from '../../src/downcycle/profile-file.js';
import {readProgress, saveProgress} from '../../src/downcycle/profile-progress.js';
import {asEnvironmentError} from '../../src/util/atomic.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {useScratch} from '../format/scratch.js';
import {TINY_LLAMA} from '../model/tiny-llama.js';
import {splitOptions} from './split-options.js';
import {tinyProfile} from './tiny-profile.js';

/** Bytes that any file opened from here on still takes before the disk is full. */
const disk = vi.hoisted(() => ({free: Number.POSITIVE_INFINITY}));

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof fs>();
  return {...real, open: async (...args: Parameters<typeof real.open>) => limited(await real.open(...args))};
});

const scratch = useScratch();
const method = splitOptions({method: 'contiguous', experts: 4, shared: 2, topK: 2});

beforeEach(() => {
  disk.free = Number.POSITIVE_INFINITY;
});

describe('on a full disk', () => {
  it.each([0, 3000, 12_000])(
    'a conversion that stops after %i bytes leaves nothing, and what stood there stays',
    async (free) => {
      await mkdir(scratch('models'));
      await writeFile(scratch('models/mine'), 'kept');
      disk.free = free;
      const converting = convert({model: TINY_LLAMA, out: scratch('models/moe'), method, seed: 1});
      await expect(converting).rejects.toThrow(EnvironmentError);
      await expect(converting).rejects.toThrow(`${scratch('models/moe')}: no space left on the disk.`);
      expect(await readdir(scratch('models'))).toEqual(['mine']);
      disk.free = Number.POSITIVE_INFINITY;
      expect((await convert({model: TINY_LLAMA, out: scratch('models/moe'), method, seed: 1})).out).not.toBeNull();
    },
  );

  it.each([0, 2000])('a profile that stops after %i bytes leaves nothing', async (free) => {
    const profile = await tinyProfile();
    disk.free = free;
    await expect(writeProfile(scratch('profile'), profile)).rejects.toThrow(
      `${scratch('profile')}: no space left on the disk.`,
    );
    expect(await readdir(scratch())).toEqual([]);
    disk.free = Number.POSITIVE_INFINITY;
    await writeProfile(scratch('profile'), profile);
    expect((await readProfile(scratch('profile'))).metadata).toEqual(profile.metadata);
  });

  it('what was kept of a profile stays when more of it does not fit', async () => {
    const {layers, metadata} = await tinyProfile();
    const hidden = [new Float32Array(64).fill(3)];
    await saveProgress(scratch('partial'), {layers: layers.slice(0, 1), metadata, hidden});
    const before = await readFile(scratch('partial'));
    disk.free = 5000;
    await expect(saveProgress(scratch('partial'), {layers, metadata, hidden})).rejects.toThrow(EnvironmentError);
    expect(await readFile(scratch('partial'))).toEqual(before);
    expect(await readdir(scratch())).toEqual(['partial']);
    expect((await readProgress(scratch('partial'), metadata))?.layers).toHaveLength(1);
  });
});

it('a file that grew too large for the disk is an EnvironmentError, too', () => {
  const error = asEnvironmentError(Object.assign(new Error('EFBIG'), {code: 'EFBIG'}), 'models/moe');
  expect(error).toBeInstanceOf(EnvironmentError);
  expect(error).toMatchObject({
    message: 'models/moe: a file grew larger than this disk or the limit of the process allows.',
  });
});

/** A handle that takes what still fits, as a full disk does. */
function limited(file: fs.FileHandle): fs.FileHandle {
  const full = (): Error => Object.assign(new Error('ENOSPC: no space left on device, write'), {code: 'ENOSPC'});
  const write = file.write.bind(file) as (bytes: Uint8Array, offset?: number, length?: number, at?: number) => unknown;
  const append = file.appendFile.bind(file);
  const take = async (data: string | Uint8Array): Promise<void> => {
    const bytes = Buffer.from(data as Uint8Array);
    const fits = Math.min(bytes.length, disk.free);
    disk.free -= fits;
    await append(bytes.subarray(0, fits));
    if (fits < bytes.length) throw full();
  };
  const limitedWrite = (bytes: Uint8Array, offset = 0, length = bytes.length, at?: number): unknown => {
    const fits = Math.min(length, disk.free);
    if (fits === 0) throw full();
    disk.free -= fits;
    return write(bytes, offset, fits, at);
  };
  return Object.assign(file, {write: limitedWrite, writeFile: take, appendFile: take});
}
