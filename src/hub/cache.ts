// The cache of Hugging Face: `models--org--name` with blobs by hash, and snapshots of links to them by commit.
import {readdir, readFile, realpath, rename, rm, stat, symlink} from 'node:fs/promises';
import {basename, dirname, join, relative, resolve} from 'node:path';
import {z} from 'zod';
import {asEnvironmentError, makeFolder, writeFileAtomic} from '../util/atomic.js';
import {exists} from '../util/exists.js';
import {isCommit, isGgufPath, type Repo} from './repo.js';

/** Where the parts of one model lie in the cache. */
export interface RepoCache {
  /** `models--org--name` */
  readonly root: string;
  readonly blobs: string;
  /** Of processes that take turns. */
  readonly locks: string;
  /** The folder of a commit. */
  snapshot(commit: string): string;
  /** The file that says which commit a branch or tag is. */
  ref(revision: string): string;
}

const CONFIG = 'config.json';
const INDEX = 'model.safetensors.index.json';
const SINGLE = 'model.safetensors';
const TOKENIZERS = ['tokenizer.json', 'tokenizer.model', 'vocab.json', 'vocab.txt'];

/** The parts of a model in a cache. */
export function repoCache(cache: string, id: string): RepoCache {
  const name = `models--${id.replaceAll('/', '--')}`;
  const root = join(cache, name);
  return {
    root,
    blobs: join(root, 'blobs'),
    locks: join(cache, '.locks', name),
    snapshot: (commit) => join(root, 'snapshots', commit),
    ref: (revision) => join(root, 'refs', revision),
  };
}

/** The cache that a folder `models--org--name` is the part of one model of; null of any other folder. */
export async function cacheEntry(folder: string): Promise<RepoCache | null> {
  const root = resolve(folder);
  const [, name] = /^models--(.+)$/.exec(basename(root)) ?? [];
  if (name === undefined || !(await exists(join(root, 'snapshots')))) return null;
  return repoCache(dirname(root), name.replaceAll('--', '/'));
}

/** The commits that there are snapshots of. */
export async function commitsIn({root}: RepoCache): Promise<string[]> {
  return (await readdir(join(root, 'snapshots')).catch((): string[] => [])).filter(isCommit).sort();
}

/** The commit that a revision was when it was last downloaded, whole or not; null if it never was. */
export async function cachedCommit(cache: RepoCache, revision: string): Promise<string | null> {
  if (isCommit(revision)) return (await exists(cache.snapshot(revision))) ? revision : null;
  const text = (await readFile(cache.ref(revision), 'utf8').catch(() => '')).trim();
  return isCommit(text) && (await exists(cache.snapshot(text))) ? text : null;
}

/** Keeps which commit a branch or tag is. */
export async function keepRef(cache: RepoCache, {revision}: Repo, commit: string): Promise<void> {
  if (!isCommit(revision)) await writeFileAtomic(cache.ref(revision), commit);
}

/** The first file that a snapshot has not, of those without which no model is used; null if it has them all. */
export async function firstMissing(snapshot: string): Promise<string | null> {
  const has = (name: string): Promise<boolean> => exists(join(snapshot, name));
  if (!(await has(CONFIG))) return CONFIG;
  const weights = (await has(SINGLE)) ? [] : ((await shardsOf(snapshot)) ?? [SINGLE]);
  for (const name of weights) if (!(await has(name))) return name;
  const found = await Promise.all(TOKENIZERS.map(has));
  return found.includes(true) ? null : TOKENIZER;
}

/** What {@link firstMissing} says of a snapshot without a tokenizer: Python may have fetched the weights alone. */
export const TOKENIZER = 'tokenizer.json';

const indexSchema = z.object({weight_map: z.record(z.string(), z.string())});

/** The files that the index of a sharded model names; null without a readable one. */
async function shardsOf(snapshot: string): Promise<string[] | null> {
  try {
    const index = indexSchema.parse(JSON.parse(await readFile(join(snapshot, INDEX), 'utf8')));
    return [...new Set(Object.values(index.weight_map))];
  } catch {
    return null;
  }
}

/** Makes a file of a snapshot a relative link to its blob, in one step: a broken link of that name gives way. */
export async function linkBlob(blob: string, path: string): Promise<void> {
  const part = `${path}.part-${process.pid}`;
  await makeFolder(dirname(path));
  try {
    await rm(part, {force: true});
    await symlink(relative(dirname(path), blob), part);
    await rename(part, path);
  } catch (error) {
    throw asEnvironmentError(error, path);
  }
}

/** Size of a file, or of what a link leads to; null if there is none. */
export async function sizeOf(path: string): Promise<number | null> {
  return (await stat(path).catch(() => null))?.size ?? null;
}

/** The commit of a model, a folder that is a snapshot in a cache or a file in one, whichever way it is named; null for any other. */
export async function commitOf(model: string): Promise<string | null> {
  const folder = isGgufPath(model) ? dirname(model) : model;
  const path = await realpath(folder).catch(() => resolve(folder));
  const [commit, parent, repo] = [basename(path), basename(dirname(path)), basename(dirname(dirname(path)))];
  return isCommit(commit) && parent === 'snapshots' && repo.startsWith('models--') ? commit : null;
}
