import {join} from 'node:path';
import {EnvironmentError, ModelError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {
  cachedCommit,
  cacheEntry,
  commitOf,
  commitsIn,
  firstMissing,
  type RepoCache,
  repoCache,
  TOKENIZER,
} from './cache.js';
import {download, type OnDownload} from './download.js';
import {isGgufPath, type Repo, readRepo} from './repo.js';
import {cacheFolder, hubOf, isOffline} from './settings.js';

/** How a model is looked for. */
export interface ResolveOptions {
  /** Branch, tag or commit; wins over one in the name. */
  readonly revision?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnDownload | undefined;
  /** Default: that of the process. */
  readonly env?: NodeJS.ProcessEnv | undefined;
}

/** Where a model lies. */
export interface ResolvedModel {
  readonly path: string;
  /** Commit on the hub; null of a folder or file that is no part of its cache. */
  readonly revision: string | null;
}

/**
 * Finds a model by its folder, its GGUF file or its name on the Hugging Face hub, `org/name` or `org/name@revision`.
 *
 * A folder or file here wins; of a folder of the cache, `models--org--name`, a snapshot is taken. Else the model is taken from the
 * cache without asking anybody, if it is whole there; else it is downloaded.
 * @throws ModelError if there is no such folder and the name is none of the hub's; EnvironmentError if the model is not in
 * the cache and no network may be used; what a download throws.
 */
export async function resolveModel(name: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const {revision, env = process.env} = options;
  if (await exists(name)) {
    const entry = await cacheEntry(name);
    return entry ? snapshotIn(entry, name, revision) : {path: name, revision: await commitOf(name)};
  }
  const named = await readRepo(revision === undefined ? name : `${name.split('@')[0]}@${revision}`);
  if (!named) throw noFolder(name);
  const cache = repoCache(cacheFolder(env), named.id);
  const commit = await cachedCommit(cache, named.revision);
  const missing = commit === null ? null : await firstMissing(cache.snapshot(commit));
  if (commit !== null && (missing === null || (missing === TOKENIZER && isOffline(env)))) return found(cache, commit);
  if (isOffline(env)) throw offline(named, cache, commit !== null, missing, env);
  const {signal, onProgress = () => undefined} = options;
  return found(cache, await download(hubOf(env, signal), named, cache, onProgress));
}

/** What a folder of the cache has of a revision; if none is asked for, of `main`, or the only snapshot that there is. */
async function snapshotIn(cache: RepoCache, name: string, revision: string | undefined): Promise<ResolvedModel> {
  const commits = await commitsIn(cache);
  const only = revision === undefined && commits.length === 1 ? commits[0] : undefined;
  const commit = (await cachedCommit(cache, revision ?? 'main')) ?? only;
  if (commit !== undefined) return found(cache, commit);
  const count = commits.length === 1 ? '1 snapshot, which is not' : `${commits.length} snapshots, and none is`;
  const held = commits.length === 0 ? 'no snapshot of a model' : `${count} ${revision ?? 'main'}`;
  throw new ModelError(`${name}: this folder of a cache holds ${held}.`, {
    hint: commits[0]
      ? `Name one, such as ${join(name, 'snapshots', commits[0])}.`
      : 'Give the name of the model instead.',
  });
}

/**
 * Whether a name that is no path here is one to look for on the hub, or a path is a folder of its cache.
 *
 * A single word is one only with a revision, or if it is in the cache: more often it is a folder that was misspelt.
 */
export async function isHubName(name: string, env: NodeJS.ProcessEnv = process.env): Promise<boolean> {
  if (await exists(name)) return (await cacheEntry(name)) !== null;
  const repo = await readRepo(name);
  if (!repo) return false;
  return /[/@]/.test(name) || (await cachedCommit(repoCache(cacheFolder(env), repo.id), repo.revision)) !== null;
}

function found(cache: RepoCache, commit: string): ResolvedModel {
  return {path: cache.snapshot(commit), revision: commit};
}

function noFolder(name: string): ModelError {
  const what = isGgufPath(name) ? 'file' : 'folder';
  return new ModelError(`${name || 'An empty path'}: there is no such ${what}.`, {
    hint: 'A model is a Hugging Face folder with config.json and safetensors, a GGUF file, or org/name on the hub.',
  });
}

function offline(
  {id, revision}: Repo,
  {root}: RepoCache,
  isThere: boolean,
  missing: string | null,
  env: NodeJS.ProcessEnv,
): EnvironmentError {
  const lack = isThere ? `${join(root, 'snapshots')} holds it without ${missing}` : `${root} does not hold it`;
  const which = isOffline({HF_HUB_OFFLINE: env.HF_HUB_OFFLINE}) ? 'HF_HUB_OFFLINE' : 'TRANSFORMERS_OFFLINE';
  return new EnvironmentError(
    `${id}: nothing of that name is here, ${lack} at revision ${revision}, and ${which} forbids to ask the network.`,
    {
      hint: `Run \`downcycle pull ${id}${revision === 'main' ? '' : `@${revision}`}\` without ${which}, or name a folder.`,
    },
  );
}
