import {createHash} from 'node:crypto';
import {availableParallelism} from 'node:os';
import {join} from 'node:path';
import {createTokenShardWriter, type TokenShardWriter} from '../format/token-shard-writer.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {DataError} from '../util/errors.js';
import type {Encoded} from './encode.js';
import {encodeSamples} from './encode-stream.js';
import type {DataOptions, SampleFormat, SourceOptions} from './options.js';
import {createPacker} from './pack.js';
import {detectFormat, readSamples} from './source.js';

export interface PrepareOptions {
  readonly data: DataOptions;
  readonly tokenizer: Tokenizer;
  /** Folder of the shards; must not exist. */
  readonly out: string;
  /** Threads that tokenize; default as many as the machine runs at once. What they make does not depend on it. */
  readonly threads?: number;
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
  /** Of them, those that are learnt: all, unless the source is of conversations or prompts. */
  readonly learnt: number;
  /** Tokens at the end that did not fill a row and are in no shard. */
  readonly leftOver: number;
  /** Rows in which nothing is learnt; they are in no shard. */
  readonly rowsLeftOut: number;
}

interface PreparedSource {
  readonly name: string;
  /** What its records were read as. */
  readonly format: SampleFormat;
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
  {data, tokenizer, out, threads = availableParallelism()}: PrepareOptions,
  source: SourceOptions,
  progress: (state: PrepareProgress) => void,
): Promise<PreparedSource> {
  const {share} = data.validation;
  const format = source.format === 'auto' ? await detectFormat(source) : source.format;
  const loss = lossOf(source, format);
  const open = (part: 'train' | 'valid') =>
    openPart(data, tokenizer, source, loss === 'completion', join(out, shardName(source.name, part)));
  const [train, valid] = [await open('train'), await open('valid')];
  try {
    let tokens = 0;
    let documents = 0;
    const samples = readSamples(source, format);
    for await (const encoded of encodeSamples(samples, tokenizer, {special: data.special, loss}, threads)) {
      await (isHeldOut(encoded.digest, share) ? valid : train).add(encoded);
      tokens += encoded.ids.length;
      documents++;
      progress({source: source.name, documents, tokens});
    }
    train.requireLearnt();
    if (share > 0) valid.requireLearnt();
    return {
      name: source.name,
      format,
      train: await explained(source, 'nothing is left to train on', train.finish()),
      valid:
        share > 0 ? await explained(source, `a validation share of ${share} holds nothing out`, valid.finish()) : null,
    };
  } finally {
    await train.abort();
    await valid.abort();
  }
}

/** What is learnt of a source. @throws DataError if completions are asked for of text. */
function lossOf({name, loss}: SourceOptions, format: SampleFormat): 'completion' | 'all' {
  if (format !== 'text') return loss ?? 'completion';
  if (loss !== 'completion') return 'all';
  throw new DataError(`Source ${name} is to learn completions alone (loss: completion), and its records are text.`, {
    hint: 'Leave `loss` out, or set `format` to chat or prompt.',
  });
}

interface Part {
  add(encoded: Encoded): Promise<void>;
  finish(): Promise<PreparedPart>;
  /** @throws DataError if there were documents or rows, and nothing in them is learnt. */
  requireLearnt(): void;
  /** Removes what is unfinished. */
  abort(): Promise<void>;
}

async function openPart(
  data: DataOptions,
  tokenizer: Tokenizer,
  source: SourceOptions,
  masked: boolean,
  path: string,
): Promise<Part> {
  const writer: TokenShardWriter = await createTokenShardWriter(path, {
    tokenizerSha256: tokenizer.fingerprint,
    sequenceLength: data.sequenceLength,
    source: source.name,
    licence: source.licence,
  });
  const packer = createPacker({...data, masked});
  let [documents, tokens, learnt, rows] = [0, 0, 0, 0];
  return {
    add: async ({ids, mask}) => {
      documents++;
      tokens += ids.length;
      learnt += mask ? mask.reduce((sum, value) => sum + value, 0) : ids.length;
      for (const row of packer.add(ids, mask)) {
        await writer.append(row);
        rows++;
      }
    },
    finish: async () => {
      await writer.finish(documents);
      // The first token of the row begun last stands in the row before it, too.
      return {documents, rows, tokens, learnt, leftOver: packer.pending() - 1, rowsLeftOut: packer.leftOut()};
    },
    requireLearnt: () => {
      if (learnt > 0 && (rows > 0 || packer.leftOut() === 0)) return;
      if (documents > 0) throw nothingLearnt(source, documents);
    },
    abort: () => writer.abort(),
  };
}

function nothingLearnt({name}: SourceOptions, documents: number): DataError {
  return new DataError(
    `Source ${name}: nothing is learnt of ${documents} of its documents: their rows hold no assistant's message and no completion.`,
    {hint: 'Correct the roles of the messages, or set `loss: all` for the source.'},
  );
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
