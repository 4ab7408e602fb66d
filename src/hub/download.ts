import {join} from 'node:path';
import {asEnvironmentError, makeFolder} from '../util/atomic.js';
import {inTurn} from '../util/turn.js';
import {fetchBlob} from './blob.js';
import {keepRef, linkBlob, type RepoCache, sizeOf} from './cache.js';
import {askCommit, type ListedFile, listFiles, neededFiles} from './listing.js';
import {isCommit, type Repo} from './repo.js';
import type {Hub} from './settings.js';

/** How far a download is. */
export interface DownloadProgress {
  readonly id: string;
  /** The file that is fetched now. */
  readonly file: string;
  /** Bytes of all needed files that are there ... */
  readonly done: number;
  /** ... and that there will be. */
  readonly total: number;
  /** Bytes that have come over the network by now. */
  readonly fetched: number;
  /** The process that is fetching this file, and that is waited for; null while we do it ourselves. */
  readonly holder: number | null;
}

/** Told how far a download is. */
export type OnDownload = (progress: DownloadProgress) => void;

/**
 * Downloads what is needed of a model into the cache, and returns the commit: which one a branch is, is asked first.
 *
 * @throws ModelError if the hub has no such revision, or the model cannot be read or is not what was promised;
 * EnvironmentError if the hub does not give it out or cannot be reached, or the disk is full.
 */
export async function download(hub: Hub, repo: Repo, cache: RepoCache, onProgress: OnDownload): Promise<string> {
  const commit = isCommit(repo.revision) ? repo.revision : await askCommit(hub, repo);
  const files = neededFiles(await listFiles(hub, repo, commit), repo.id);
  const total = files.reduce((sum, {size}) => sum + size, 0);
  let [before, fetched] = [0, 0];
  for (const file of files) {
    const tell = (bytes: number, holder: number | null = null): void =>
      onProgress({id: repo.id, file: file.name, done: before + bytes, total, fetched, holder});
    const onBytes = (bytes: number, grown: number): void => {
      fetched += grown;
      tell(bytes);
    };
    tell(0);
    await provide(hub, repo, {file, commit, cache, onBytes, onWait: (holder) => tell(0, holder)});
    before += file.size;
  }
  await inTurnFor(
    cache,
    'refs',
    () => undefined,
    () => keepRef(cache, repo, commit),
  );
  return commit;
}

interface Provided {
  readonly file: ListedFile;
  readonly commit: string;
  readonly cache: RepoCache;
  readonly onBytes: (bytes: number, grown: number) => void;
  readonly onWait: (holder: number) => void;
}

/** Puts a file into a snapshot, unless it is there. */
async function provide(hub: Hub, repo: Repo, {file, commit, cache, onBytes, onWait}: Provided): Promise<void> {
  const {name, size, hash} = file;
  const path = join(cache.snapshot(commit), name);
  if ((await sizeOf(path)) === size) return;
  const blob = join(cache.blobs, hash);
  const address = `${hub.endpoint}/${repo.id}/resolve/${commit}/${encodeURIComponent(name)}`;
  await makeFolder(cache.blobs);
  await inTurnFor(cache, hash, onWait, async () => {
    if ((await sizeOf(blob)) !== size) await fetchBlob(hub, {repo, file, address, path: blob, onBytes});
    await linkBlob(blob, path);
  });
}

/** Milliseconds between two looks at what another process is fetching. */
const POLL = 100;

/** Runs `body` while nobody else does for the same part of a model. */
async function inTurnFor(
  cache: RepoCache,
  part: string,
  onWait: (holder: number) => void,
  body: () => Promise<void>,
): Promise<void> {
  await makeFolder(cache.locks);
  // Not `<part>.lock`, which Python keeps when it is done with it, and locks by other means.
  const turn = join(cache.locks, `${part}.downcycle`);
  await inTurn(turn, {poll: POLL, onWait}, body).catch((error: unknown) => {
    throw asEnvironmentError(error, turn);
  });
}
