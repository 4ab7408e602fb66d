import {createHash} from 'node:crypto';
import {createReadStream} from 'node:fs';
import {readdir, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {openTokenShard, type TokenShard} from '../format/token-shard.js';
import type {ShardExpectation} from '../format/token-shard-check.js';
import {SHARD_FORMAT_VERSION} from '../format/token-shard-metadata.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, whyUnread} from '../util/errors.js';
import {exists} from '../util/exists.js';
import type {DataOptions, SourceOptions} from './options.js';
import {type PrepareProgress, prepare, shardName} from './prepare.js';
import {listSourceFiles} from './source.js';

/** The open shards of one source; whoever asked for them closes them. */
export interface SourceShards {
  readonly name: string;
  readonly weight: number;
  readonly train: TokenShard;
  /** Null if nothing was kept for validation. */
  readonly valid: TokenShard | null;
}

/**
 * The shards of every source, prepared into `cacheFolder` unless they are there already.
 *
 * Shards are found again by what they depend on: the text, the tokenizer and the packing. A source whose path is a
 * `.arrow` file or a folder made by `prepare` is used as it is.
 * @throws DataError if a source is empty, or a prepared shard is of another tokenizer or sequence length.
 */
export async function ensureShards(
  data: DataOptions,
  tokenizer: Tokenizer,
  cacheFolder: string,
  progress?: (state: PrepareProgress) => void,
): Promise<SourceShards[]> {
  const opened: SourceShards[] = [];
  try {
    for (const source of data.sources) opened.push(await ensureSource(data, source, tokenizer, cacheFolder, progress));
    return opened;
  } catch (error) {
    await closeShards(opened);
    throw error;
  }
}

/** Closes every shard of every source. */
export async function closeShards(sources: readonly SourceShards[]): Promise<void> {
  for (const {train, valid} of sources) {
    await train.close();
    await valid?.close();
  }
}

async function ensureSource(
  data: DataOptions,
  source: SourceOptions,
  tokenizer: Tokenizer,
  cacheFolder: string,
  progress?: (state: PrepareProgress) => void,
): Promise<SourceShards> {
  const expected = expectation(data, tokenizer);
  const ready = await findPrepared(source);
  if (ready) return openPair(source, ready, expected);
  const out = join(cacheFolder, `${source.name}-${await preparationKey(data, source, tokenizer)}`);
  const pair = pairIn(out, source.name, data.validation.share > 0);
  const isThere = await exists(out);
  const kept = await openPair(source, pair, expected).catch(() => null);
  if (kept) return kept;
  if (isThere) await rm(out, {recursive: true, force: true}); // damaged: it is a cache
  try {
    await prepare({data: {...data, sources: [source]}, tokenizer, out}, progress);
  } catch (error) {
    // Another process may have packed the same meanwhile; if it has not, the error stands.
    return openPair(source, pair, expected).catch(() => Promise.reject(error as Error));
  }
  return openPair(source, pair, expected);
}

interface Pair {
  readonly train: string;
  readonly valid: string | null;
}

function pairIn(folder: string, name: string, hasValid: boolean): Pair {
  return {
    train: join(folder, shardName(name, 'train')),
    valid: hasValid ? join(folder, shardName(name, 'valid')) : null,
  };
}

/** The shards a source names itself; `x.train.arrow` brings the `x.valid.arrow` beside it. */
async function findPrepared({name, path}: SourceOptions): Promise<Pair | null> {
  if (typeof path !== 'string') return null;
  if (path.endsWith('.arrow')) {
    const valid = path.replace(/\.train\.arrow$/, '.valid.arrow');
    return {train: path, valid: valid !== path && (await exists(valid)) ? valid : null};
  }
  const pair = pairIn(path, name, true);
  if (!(await exists(pair.train))) return refuseOtherNames(path, name);
  return pair.valid && (await exists(pair.valid)) ? pair : {...pair, valid: null};
}

/** A folder of other sources' shards is no folder of text. @throws DataError naming those; null if there are none. */
async function refuseOtherNames(folder: string, name: string): Promise<null> {
  const names = (await readdir(folder).catch(() => [])).flatMap((file) => /^(.+)\.train\.arrow$/.exec(file)?.[1] ?? []);
  if (names.length === 0) return null;
  throw new DataError(`${folder} holds shards of ${names.sort().join(', ')}, none of source ${name}.`, {
    hint: 'Name the source as it was when it was prepared, or give the path of one shard.',
  });
}

async function openPair({name, weight}: SourceOptions, pair: Pair, expected: ShardExpectation): Promise<SourceShards> {
  const train = await openTokenShard(pair.train, expected);
  try {
    return {name, weight, train, valid: pair.valid === null ? null : await openTokenShard(pair.valid, expected)};
  } catch (error) {
    await train.close();
    throw error;
  }
}

function expectation({sequenceLength, boundaries}: DataOptions, tokenizer: Tokenizer): ShardExpectation {
  return {
    sequenceLength,
    tokenizerSha256: tokenizer.fingerprint,
    vocabSize: tokenizer.vocabSize,
    segments: boundaries === 'keep',
  };
}

/** Raised when the same records are read as other text than before. */
const READING = 2;

/** A hash of everything the bytes of a shard depend on. */
async function preparationKey(data: DataOptions, source: SourceOptions, tokenizer: Tokenizer): Promise<string> {
  const {sequenceLength, boundaries, special, validation} = data;
  const {fingerprint, addsBos, bosId, eosId, chat} = tokenizer;
  const files = await Promise.all((await listSourceFiles(source.path)).map(hashFile));
  const parts = [SHARD_FORMAT_VERSION, READING, sequenceLength, boundaries, special, validation.share, fingerprint];
  const read = [source.format, source.loss ?? null, source.format === 'text' ? null : (chat?.source ?? null)];
  const others = [addsBos ? bosId : null, eosId, source.field ?? null, source.licence, files, read];
  return createHash('sha256')
    .update(JSON.stringify([...parts, ...others]))
    .digest('hex')
    .slice(0, 16);
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of createReadStream(path, {highWaterMark: 2 ** 20}) as AsyncIterable<Buffer>)
      hash.update(chunk);
  } catch (error) {
    throw new DataError(`${path}: ${whyUnread(error)}.`, {cause: error});
  }
  return hash.digest('hex');
}
