import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach} from 'vitest';

/** A fresh folder for each test of a file; call once, at the top. Returns the path of a name in it. */
export function useScratch(): (name?: string) => string {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'downcycle-format-'));
  });
  afterEach(() => rm(folder, {recursive: true, force: true}));
  return (name = '') => join(folder, name);
}
