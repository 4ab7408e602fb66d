import {mkdtemp, open, readdir, rm, stat, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {describe, expect, it, onTestFinished} from 'vitest';
import {openRowCache} from '../../src/format/row-cache.js';
import {openSafetensors} from '../../src/format/safetensors.js';

async function pathInFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-rows-'));
  onTestFinished(() => rm(folder, {recursive: true, force: true}));
  return join(folder, 'inside', 'rows.safetensors');
}

describe('a row cache', () => {
  it('gives back what was written, in any order, also after it was closed', async () => {
    const path = await pathInFolder();
    const cache = await openRowCache(path, 4, 3);
    await cache.write(2, Float32Array.of(1, 2, 3));
    await cache.write(0, Float32Array.of(4, 5, 6));
    expect(await cache.read(2)).toEqual(Float32Array.of(1, 2, 3));
    expect(await cache.read(1)).toBeNull();
    await cache.close();
    const again = await openRowCache(path, 4, 3);
    expect(await Promise.all([0, 1, 2, 3].map((row) => again.read(row)))).toEqual([
      Float32Array.of(4, 5, 6),
      null,
      Float32Array.of(1, 2, 3),
      null,
    ]);
    await again.close();
  });

  it('is a safetensors file, and nothing else is left in its folder', async () => {
    const path = await pathInFolder();
    const cache = await openRowCache(path, 2, 2);
    await cache.write(1, Float32Array.of(7, 8));
    await cache.close();
    const file = await openSafetensors(path);
    const checks = await file.readBytes('check');
    expect([...new Int32Array(checks.buffer, checks.byteOffset, 2)]).toEqual([0, expect.not.closeTo(0)]);
    const rows = await file.readBytes('rows');
    expect([...new Float32Array(rows.buffer, rows.byteOffset, 4)]).toEqual([0, 0, 7, 8]);
    await file.close();
    expect(await readdir(join(path, '..'))).toEqual(['rows.safetensors']);
  });

  it('knows half of a row for none', async () => {
    const path = await pathInFolder();
    const cache = await openRowCache(path, 2, 4);
    await cache.write(0, Float32Array.of(1, 2, 3, 4));
    await cache.write(1, Float32Array.of(5, 6, 7, 8));
    const file = await openSafetensors(path);
    const {begin} = file.info('rows');
    await file.close();
    const handle = await open(path, 'r+');
    await handle.write(Buffer.alloc(8), 0, 8, begin + 8);
    await handle.close();
    expect(await cache.read(0)).toBeNull();
    expect(await cache.read(1)).toEqual(Float32Array.of(5, 6, 7, 8));
    await cache.close();
  });

  it('takes no room on the disk for rows that were not written', async () => {
    const path = await pathInFolder();
    await (await openRowCache(path, 1000, 10_000)).close();
    const {size, blocks} = await stat(path);
    expect(size).toBeGreaterThan(40e6);
    expect(512 * blocks).toBeLessThan(1e6);
  });

  it('begins again where the file is of another shape, or none of ours', async () => {
    const path = await pathInFolder();
    const cache = await openRowCache(path, 2, 2);
    await cache.write(0, Float32Array.of(7, 8));
    await cache.close();
    const other = await openRowCache(path, 2, 3);
    expect(await other.read(0)).toBeNull();
    await other.close();
    await writeFile(path, 'nonsense');
    const third = await openRowCache(path, 2, 2);
    expect(await third.read(0)).toBeNull();
    await expect(third.write(0, Float32Array.of(1))).rejects.toThrow('a row of 2 numbers was given 1');
    await third.close();
  });
});
