import {copyFile, readdir, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {refuseExisting, writeFolderAtomic} from '../util/atomic.js';
import {UsageError} from '../util/errors.js';
import {cacheEntry} from './cache.js';
import {type ResolveOptions, resolveModel} from './resolve.js';

/** Which model is fetched, and how. */
export interface PullOptions extends ResolveOptions {
  /** `org/name` or `org/name@revision`. */
  readonly model: string;
  /** Folder to copy it to, besides; must not exist. */
  readonly out?: string | undefined;
}

/** What was fetched, or found. */
export interface PulledModel {
  /** The copy if one was asked for, else the folder in the cache. */
  readonly path: string;
  readonly commit: string;
  readonly files: number;
  readonly bytes: number;
}

/**
 * Downloads a model of the hub into the cache, unless it is there.
 *
 * @throws UsageError if the name is that of a folder here; EnvironmentError if `out` exists; what {@link resolveModel} throws.
 */
export async function pull({model, out, ...options}: PullOptions): Promise<PulledModel> {
  if (out !== undefined) await refuseExisting(out);
  const {path, revision: commit} = await resolveModel(model, options);
  if (path === model || commit === null || (await cacheEntry(model))) {
    throw new UsageError(`${model} is here already, and a path that is here is never looked for on the hub.`, {
      hint: 'Use it as it is, or run this in another folder.',
    });
  }
  const sizes = await fileSizes(path);
  if (out !== undefined) {
    await writeFolderAtomic(out, async (part) => {
      for (const [name] of sizes) await copyFile(join(path, name), join(part, name)); // what links lead to
    });
  }
  const bytes = sizes.reduce((sum, [, size]) => sum + size, 0);
  return {path: out ?? path, commit, files: sizes.length, bytes};
}

/** The files of a folder by name; Python may have put folders beside them, which hold other forms of the model. */
async function fileSizes(folder: string): Promise<(readonly [name: string, size: number])[]> {
  const found: (readonly [string, number])[] = [];
  for (const name of (await readdir(folder)).sort()) {
    const info = await stat(join(folder, name));
    if (info.isFile()) found.push([name, info.size]);
  }
  return found;
}
