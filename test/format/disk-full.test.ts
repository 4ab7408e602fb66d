import {execFileSync} from 'node:child_process';
import type * as fs from 'node:fs/promises';
import {mkdir, readdir, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it, vi} from 'vitest';
import {writeModelFolder} from '../../src/format/model-folder.js';
import {openRunLog, readRunLog} from '../../src/format/run-log.js';
import type {RunLogRecord} from '../../src/format/run-record.js';
import {EnvironmentError} from '../../src/util/errors.js';
import {useScratch} from './scratch.js';

/** Bytes that any file opened from here on still takes before the disk is full. */
const disk = vi.hoisted(() => ({free: Number.POSITIVE_INFINITY}));

vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof fs>();
  return {...real, open: async (...args: Parameters<typeof real.open>) => limited(await real.open(...args))};
});

const scratch = useScratch();
const CHECKPOINT = {kind: 'checkpoint', step: 1, path: 'step-000001'} as const satisfies RunLogRecord;

beforeEach(() => {
  disk.free = Number.POSITIVE_INFINITY;
});

describe('on a full disk', () => {
  it('a model folder that does not fit is an EnvironmentError for its path, and nothing of it is left', async () => {
    disk.free = 100_000;
    const error = await writeLargeModel(scratch('out')).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(EnvironmentError);
    expect((error as Error).message).toBe(`${scratch('out')}: no space left on the disk.`);
    expect(await readdir(scratch())).toEqual([]);
  });

  it('a log line that does not fit is an EnvironmentError, and the lines before it are whole', async () => {
    const log = await openRunLog(scratch('log.jsonl'));
    await log.append(CHECKPOINT);
    disk.free = 20;
    await expect(log.append({...CHECKPOINT, step: 2})).rejects.toBeInstanceOf(EnvironmentError);
    disk.free = 0;
    await expect(log.append({...CHECKPOINT, step: 2})).rejects.toThrow(/no space left/);
    expect(await readFile(scratch('log.jsonl'), 'utf8')).toMatch(/^[^\n]*\n$/);
    disk.free = Number.POSITIVE_INFINITY;
    await log.append({...CHECKPOINT, step: 3});
    await log.close();
    expect(await readRunLog(scratch('log.jsonl'))).toEqual([CHECKPOINT, {...CHECKPOINT, step: 3}]);
  });
});

const mountPoint = join(tmpdir(), `downcycle-small-disk-${process.pid}`);

describe.skipIf(!canMount())('on a real disk of 1 MB (skipped where tmpfs cannot be mounted)', () => {
  beforeEach(async () => {
    await mkdir(mountPoint);
    mount();
  });
  afterEach(async () => {
    execFileSync('umount', [mountPoint]);
    await rm(mountPoint, {recursive: true});
  });

  it('a model of 4 MB is an EnvironmentError and leaves the disk empty', async () => {
    await expect(writeLargeModel(join(mountPoint, 'out'))).rejects.toThrow(/out: no space left on the disk/);
    expect(await readdir(mountPoint)).toEqual([]);
  });

  it('a log is written up to the last line that fits, and resumes', async () => {
    const path = join(mountPoint, 'log.jsonl');
    const log = await openRunLog(path);
    let written = 0;
    const append = async (): Promise<void> => {
      for (; ; written++) await log.append({...CHECKPOINT, path: 'x'.repeat(50_000)});
    };
    await expect(append()).rejects.toBeInstanceOf(EnvironmentError);
    await log.close();
    expect(written).toBeGreaterThan(5);
    expect(await readRunLog(path)).toHaveLength(written);
  });
});

function writeLargeModel(path: string): Promise<void> {
  const entries = ['a', 'b'].map((name) => ({name, dtype: 'F32', shape: [512, 1024]}) as const);
  return writeModelFolder(path, {config: {}, entries, read: async () => new Float32Array(512 * 1024)});
}

/** A handle that takes what still fits, as a full disk does: a short write first, then ENOSPC. */
function limited(file: fs.FileHandle): fs.FileHandle {
  const write = file.write.bind(file) as (bytes: Uint8Array, offset?: number, length?: number, at?: number) => unknown;
  const limitedWrite = (bytes: Uint8Array, offset = 0, length = bytes.length, at?: number): unknown => {
    const fits = Math.min(length, disk.free);
    if (fits === 0) throw Object.assign(new Error('ENOSPC: no space left on device, write'), {code: 'ENOSPC'});
    disk.free -= fits;
    return write(bytes, offset, fits, at);
  };
  return Object.assign(file, {write: limitedWrite});
}

function mount(): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mountPoint], {stdio: 'ignore'});
}

function canMount(): boolean {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return false;
  try {
    execFileSync('mkdir', ['-p', mountPoint]);
    mount();
    execFileSync('umount', [mountPoint]);
    return true;
  } catch {
    return false;
  } finally {
    execFileSync('rm', ['-rf', mountPoint]);
  }
}
