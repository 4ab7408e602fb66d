import {createHash} from 'node:crypto';
import {join} from 'node:path';
import type {ShardMetadata} from '../format/token-shard-metadata.js';
import {createTokenShardWriter, type TokenShardWriter} from '../format/token-shard-writer.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import type {DataOptions, SourceOptions} from './options.js';
import {createPacker, documentIds} from './pack.js';
import {readDocuments} from './source.js';

export interface PrepareOptions {
  readonly data: DataOptions;
  readonly tokenizer: Tokenizer;
  /** Folder of the shards; must not exist. */
  readonly out: string;
}

export interface PrepareProgress {
  readonly source: string;
  readonly documents: number;
  readonly tokens: number;
}

/** What became of one part of a source. */
interface PreparedPart {
  readonly documents: number;
  readonly rows: number;
  /** Tokens of the documents, end tokens among them. */
  readonly tokens: number;
  /** Tokens at the end that did not fill a row and are in no shard. */
  readonly leftOver: number;
}

interface PreparedSource {
  readonly name: string;
  readonly train: PreparedPart;
  /** Null if the validation share is 0. */
  readonly valid: PreparedPart | null;
}

export interface PrepareResult {
  readonly out: string;
  readonly sources: readonly PreparedSource[];
  readonly documents: number;
  readonly tokens: number;
  readonly rows: number;
  readonly seconds: number;
}

/** Name of a source's shard inside a prepared folder. */
export function shardName(source: string, part: 'train' | 'valid'): string {
  return `${source}.${part}.arrow`;
}

/**
 * Turns text into shards: `<source>.train.arrow`, `<source>.valid.arrow` and `prepare.json` in a new folder.
 *
 * A document goes to validation by the hash of its text alone, so the choice is the same in every run and order.
 * @throws EnvironmentError if `out` exists or the disk is full, DataError if a source is empty or too short.
 */
export async function prepare(
  options: PrepareOptions,
  progress: (state: PrepareProgress) => void = () => {},
): Promise<PrepareResult> {
  const start = performance.now();
  return writeFolderAtomic(options.out, async (folder) => {
    const sources: PreparedSource[] = [];
    for (const source of options.data.sources) {
      sources.push(await prepareSource({...options, out: folder}, source, progress));
    }
    const seconds = (performance.now() - start) / 1000;
    const result = {out: options.out, sources, ...totals(sources), seconds};
    await writeFileAtomic(join(folder, 'prepare.json'), `${JSON.stringify(result, null, 2)}\n`);
    return result;
  });
}

/** Whether a document is kept for validation: the first 32 bits of the SHA-256 of its text lie below `share`. */
export function isValidation(text: string, share: number): boolean {
  return isHeldOut(digestOf(text), share);
}

/** SHA-256 of a document's text, in hex. */
export function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** {@link isValidation} of a document by its digest. */
export function isHeldOut(digest: string, share: number): boolean {
  return Number.parseInt(digest.slice(0, 8), 16) < share * 2 ** 32;
}

async function prepareSource(
  {data, tokenizer, out}: PrepareOptions,
  source: SourceOptions,
  progress: (state: PrepareProgress) => void,
): Promise<PreparedSource> {
  const {share} = data.validation;
  const train = await openPart(data, tokenizer, source, join(out, shardName(source.name, 'train')));
  const valid = await openPart(data, tokenizer, source, join(out, shardName(source.name, 'valid')));
  try {
    let tokens = 0;
    let documents = 0;
    for await (const text of readDocuments(source)) {
      const ids = documentIds(tokenizer, text, data.special);
      await (isValidation(text, share) ? valid : train).add(ids);
      tokens += ids.length;
      documents++;
      progress({source: source.name, documents, tokens});
    }
    return {
      name: source.name,
      train: await explained(source, 'nothing is left to train on', train.finish()),
      valid:
        share > 0 ? await explained(source, `a validation share of ${share} holds nothing out`, valid.finish()) : null,
    };
  } finally {
    await train.abort();
    await valid.abort();
  }
}

interface Part {
  add(ids: Int32Array): Promise<void>;
  finish(): Promise<PreparedPart>;
  /** Removes what is unfinished. */
  abort(): Promise<void>;
}

async function openPart(data: DataOptions, tokenizer: Tokenizer, source: SourceOptions, path: string): Promise<Part> {
  const writer: TokenShardWriter = await createTokenShardWriter(path, {
    tokenizerSha256: tokenizer.fingerprint,
    sequenceLength: data.sequenceLength,
    source: source.name,
    licence: source.licence,
  });
  const packer = createPacker(data);
  let documents = 0;
  let tokens = 0;
  return {
    add: async (ids) => {
      documents++;
      tokens += ids.length;
      for (const row of packer.add(ids)) await writer.append(row);
    },
    finish: async () => {
      const {rows}: ShardMetadata = await writer.finish(documents);
      // The first token of the row begun last stands in the row before it, too.
      return {documents, rows, tokens, leftOver: packer.pending() - 1};
    },
    abort: () => writer.abort(),
  };
}

/** What to do about a source that is too short, whichever part of it is. */
async function explained<T>({name}: SourceOptions, what: string, part: Promise<T>): Promise<T> {
  return part.catch((cause: unknown) => {
    if (!(cause instanceof DataError)) throw cause;
    throw new DataError(`Source ${name}: ${what}: ${cause.message}`, {
      hint: 'Give more documents (in .txt files two blank lines or a form feed part them), change data.validation.share (0 for none), or lower data.sequenceLength.',
      cause,
    });
  });
}

function totals(sources: readonly PreparedSource[]): Pick<PrepareResult, 'documents' | 'tokens' | 'rows'> {
  const parts = sources.flatMap(({train, valid}) => (valid ? [train, valid] : [train]));
  const sum = (key: 'documents' | 'tokens' | 'rows'): number => parts.reduce((total, part) => total + part[key], 0);
  return {documents: sum('documents'), tokens: sum('tokens'), rows: sum('rows')};
}
