// One file of the hub, fetched so that an interrupted download goes on, and only what was promised is kept.
import {createHash} from 'node:crypto';
import {createReadStream} from 'node:fs';
import {open, rename, rm} from 'node:fs/promises';
import {asEnvironmentError} from '../util/atomic.js';
import {EnvironmentError, ModelError, systemCode} from '../util/errors.js';
import {sizeOf} from './cache.js';
import type {ListedFile} from './listing.js';
import type {Repo} from './repo.js';
import {get, unreached} from './request.js';
import {PassingError, retried} from './retry.js';
import {type Hub, hostOf} from './settings.js';

/** What is fetched, and where to. */
export interface BlobOptions {
  readonly repo: Repo;
  readonly file: ListedFile;
  readonly address: string;
  /** The whole file; while it is fetched `<path>.incomplete` holds what there is. */
  readonly path: string;
  /** Told how many bytes there are, and how many of them have just come. */
  readonly onBytes: (bytes: number, grown: number) => void;
}

/**
 * Fetches a file, or the rest of it.
 *
 * @throws ModelError if it is not the file that was listed, which removes it; EnvironmentError if the disk is full or the
 * server fails again and again, which keeps what is there.
 */
export async function fetchBlob(hub: Hub, options: BlobOptions): Promise<void> {
  const {repo, file, path} = options;
  const part = partOf(path);
  let before = 0;
  let bytes = 0;
  const run = async (): Promise<void> => {
    before = bytes = (await sizeOf(part)) ?? 0;
    await fetchRest(hub, options, (now, grown) => {
      bytes = now;
      options.onBytes(now, grown);
    });
  };
  try {
    await retried(hub, run, () => bytes > before);
    if ((await hashOf(part, file)) !== file.hash) {
      await rm(part);
      throw damaged(repo, file, hostOf(hub.endpoint));
    }
    await rename(part, path);
  } catch (error) {
    throw inWords(error, path);
  }
}

function partOf(path: string): string {
  return `${path}.incomplete`;
}

async function fetchRest(
  hub: Hub,
  {repo, file: {name, size, hash}, address, path}: BlobOptions,
  onBytes: BlobOptions['onBytes'],
): Promise<void> {
  const have = (await sizeOf(partOf(path))) ?? 0;
  if (have === size && size > 0) return;
  const response = await get(hub, repo, address, have > 0 && have < size ? {range: `bytes=${have}-`} : {});
  const isRest = response.status === 206 && startOf(response) === have;
  const part = await open(partOf(path), isRest ? 'a' : 'w');
  let bytes = isRest ? have : 0;
  try {
    for await (const chunk of chunksOf(response, hub, repo)) {
      bytes += chunk.byteLength;
      if (bytes > size) break; // the hash would not fit either
      await part.appendFile(chunk);
      onBytes(bytes, chunk.byteLength);
    }
    await part.sync();
  } finally {
    await part.close();
  }
  if (bytes < size) throw new PassingError(`${repo.id}: ${name} ended after ${bytes} of ${size} bytes.`, AGAIN);
  if (bytes === size) return;
  await rm(partOf(path));
  throw damaged(repo, {name, size, hash}, hostOf(hub.endpoint));
}

const AGAIN = {hint: 'Run it again: what was downloaded is kept.'};

/** The place in the file that an answer to a range begins at. */
function startOf({headers}: Response): number | null {
  const start = /^bytes (\d+)-/.exec(headers.get('content-range') ?? '')?.[1];
  return start === undefined ? null : Number(start);
}

/** Errors in here are the network's; those of whoever writes the chunks are not. */
async function* chunksOf(response: Response, hub: Hub, repo: Repo): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response.body ?? []) yield chunk as Uint8Array;
  } catch (cause) {
    throw unreached(hub, repo, new URL(response.url).host, cause);
  }
}

/** SHA-256, or git's SHA-1 of a file that git holds itself. */
async function hashOf(path: string, {size, hash}: ListedFile): Promise<string> {
  const isGit = hash.length === 40;
  const sum = createHash(isGit ? 'sha1' : 'sha256');
  if (isGit) sum.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, {highWaterMark: 1 << 20})) sum.update(chunk as Uint8Array);
  return sum.digest('hex');
}

function damaged({id}: Repo, {name, hash}: ListedFile, host: string): ModelError {
  return new ModelError(`${id}: ${name} is not what ${host} listed: its hash is not ${hash.slice(0, 12)}...`, {
    hint: 'The file was removed. Run it again; if that does not help, a proxy may change what it passes on.',
  });
}

function inWords(error: unknown, path: string): unknown {
  const code = systemCode(error);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return asEnvironmentError(error, path);
  return new EnvironmentError(`${path}: no space left on the disk.`, {
    hint: 'Free some space and run it again: it goes on where it stopped. HF_HUB_CACHE puts the cache on another disk.',
    cause: error,
  });
}
