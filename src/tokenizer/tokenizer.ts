import {createHash} from 'node:crypto';
import {z} from 'zod';
import {openTokenizerFiles, type TokenizerFiles} from '../format/tokenizer-files.js';
import {DataError, DowncycleError, ModelError} from '../util/errors.js';
import {type ChatTemplate, createChatTemplate, readTemplateSource} from './chat-template.js';
import {createLibrary, type Library} from './library.js';

export interface EncodeOptions {
  /** Whether `<|im_end|>` and the like in a text become their one id (default) or are read as plain characters. */
  readonly special?: 'recognised' | 'text';
  /** Whether to put the tokens that this tokenizer puts around a text (default), only those before it, or none. */
  readonly addSpecial?: boolean | 'before';
}

interface DecodeOptions {
  /** Leaves special tokens out of the text; default false. */
  readonly skipSpecial?: boolean;
}

/** The tokenizer of a model folder: text to ids and back. */
export interface Tokenizer {
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** Ids below {@link vocabSize} that no token has give nothing. @throws DataError for an id outside the vocabulary. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** The highest id plus one. */
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  /** Whether `addSpecial` puts the begin token before a text, so that training documents should have it too. */
  readonly addsBos: boolean;
  /** Where it was loaded from. */
  readonly folder: string;
  /** SHA-256 of the bytes of tokenizer.json, hexadecimal. */
  readonly fingerprint: string;
  /** How the model writes conversations; null if nothing in its folder says so. */
  readonly chat: ChatTemplate | null;
}

const tokenName = z.union([z.string(), z.object({content: z.string()}).transform((token) => token.content)]).nullish();

const settingsSchema = z.looseObject({
  bos_token: tokenName,
  eos_token: tokenName,
  unk_token: tokenName,
  pad_token: tokenName,
  add_bos_token: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.looseObject({name: z.string(), template: z.string()}))]).nullish(),
});

const definitionSchema = z.looseObject({
  added_tokens: z
    .array(z.looseObject({id: z.int(), content: z.string(), special: z.boolean().default(false)}))
    .default([]),
  normalizer: z.unknown().default(null),
  pre_tokenizer: z.unknown().default(null),
  post_processor: z.unknown().default(null),
  decoder: z.unknown().default(null),
  model: z.looseObject({
    type: z.enum(['BPE', 'Unigram', 'WordPiece', 'WordLevel']).optional(), // the library takes others for a word list
    vocab: z.union([z.record(z.string(), z.number()), z.array(z.unknown())]),
  }),
});

type Settings = z.infer<typeof settingsSchema>;
type Definition = z.infer<typeof definitionSchema>;

/**
 * Loads `tokenizer.json`, and `tokenizer_config.json` where there is one, from a Hugging Face folder; of a GGUF file, those
 * that can be made of what it holds, else those beside it.
 *
 * Ids equal those of the Rust tokenizers package.
 * @throws ModelError if a file is missing, is not JSON, or is no tokenizer we can run.
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const files = await openTokenizerFiles(folder);
  const {path, bytes} = await readDefinition(files);
  const definition = parse(path, bytes.toString('utf8'), definitionSchema);
  const settings = await readSettings(files);
  const recognising = build(path, definition, settings);
  const literal = once(() => build(path, withoutSpecialTokens(definition), settings));
  return {
    ...createTokenizer(recognising, literal, settings),
    folder,
    fingerprint: sha256(bytes),
    chat: await readChat(files, settings),
  };
}

/**
 * The {@link Tokenizer} fingerprint of a folder, without making its tokenizer.
 *
 * @throws ModelError if there is no tokenizer.json.
 */
export async function tokenizerFingerprint(folder: string): Promise<string> {
  return sha256((await readDefinition(await openTokenizerFiles(folder))).bytes);
}

async function readDefinition(files: TokenizerFiles): Promise<{readonly path: string; readonly bytes: Buffer}> {
  const bytes = await readTokenizerFile(files, 'tokenizer.json');
  if (!bytes) throw files.lacking({});
  return {path: files.label('tokenizer.json'), bytes};
}

async function readTokenizerFile(files: TokenizerFiles, name: string): Promise<Buffer | null> {
  try {
    return await files.read(name);
  } catch (error) {
    throw error instanceof DowncycleError ? error : broken(files.label(name), error);
  }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function readChat(files: TokenizerFiles, settings: Settings): Promise<ChatTemplate | null> {
  const source = await readTemplateSource(files, settings.chat_template);
  if (source === null) return null;
  const names = ['bos_token', 'eos_token', 'unk_token', 'pad_token'] as const;
  return createChatTemplate(source, Object.fromEntries(names.map((name) => [name, settings[name] ?? ''])));
}

function createTokenizer(
  recognising: Library,
  literal: () => Library,
  settings: Settings,
): Omit<Tokenizer, 'folder' | 'fingerprint' | 'chat'> {
  const vocabSize = recognising.model.vocab.length;
  const bosId = idOf(recognising, settings.bos_token);
  const eosId = idOf(recognising, settings.eos_token);
  const around = surroundings(recognising, settings, bosId);
  return {
    vocabSize,
    bosId,
    eosId,
    addsBos: bosId !== null && around.before.includes(bosId),
    encode: (text, {special = 'recognised', addSpecial = true} = {}) => {
      const ids = plainIds(special === 'text' ? literal() : recognising, text);
      const before = addSpecial === false ? [] : around.before;
      return Int32Array.from([...before, ...ids, ...(addSpecial === true ? around.after : [])]);
    },
    decode: (ids, {skipSpecial = false} = {}) => {
      const list = Array.from(ids);
      for (const id of list) refuseUnknown(id, vocabSize);
      if (list.length === 0) return '';
      // to clean up spaces, which some settings ask for, takes away what stood in the text; transformers 5 does not of BPE either
      return recognising.decode(list, {skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false});
    },
  };
}

function plainIds(library: Library, text: string): number[] {
  return library.encode(text, {add_special_tokens: false}).ids;
}

/**
 * The ids the tokenizer puts before and after a text, found once by encoding a probe, so that they can be put around
 * ids made in either way of reading special tokens.
 *
 * `add_eos_token` of the settings is not heeded, as transformers 5 does not where there is a tokenizer.json.
 */
function surroundings(library: Library, settings: Settings, bosId: number | null) {
  const inner = plainIds(library, 'a');
  const outer = library.encode('a', {add_special_tokens: true}).ids;
  const start = outer.findIndex((_, i) => inner.every((id, j) => outer[i + j] === id));
  const before = outer.slice(0, start);
  const after = outer.slice(start + inner.length);
  if (settings.add_bos_token && bosId !== null && before[0] !== bosId) before.unshift(bosId);
  return {before, after};
}

function build(path: string, definition: Definition, settings: Settings): Library {
  try {
    return createLibrary(definition, settings);
  } catch (error) {
    throw broken(path, error);
  }
}

/** Building takes most of the time of loading, and few ask for both ways of reading special tokens. */
function once<T>(make: () => T): () => T {
  let made: {readonly value: T} | null = null;
  return () => {
    made ??= {value: make()};
    return made.value;
  };
}

/** Special tokens are no words of the splitter any more; added tokens that are not special still are. */
function withoutSpecialTokens(definition: Definition): Definition {
  return {...definition, added_tokens: definition.added_tokens.filter((token) => !token.special)};
}

function idOf(library: Library, token: string | null | undefined): number | null {
  return token ? (library.token_to_id(token) ?? null) : null;
}

function refuseUnknown(id: number, vocabSize: number): void {
  if (Number.isInteger(id) && id >= 0 && id < vocabSize) return;
  throw new DataError(`Token id ${id} is not in the vocabulary of ${vocabSize}.`, {
    hint: 'Decode with the tokenizer that made these ids.',
  });
}

async function readSettings(files: TokenizerFiles): Promise<Settings> {
  const name = 'tokenizer_config.json';
  const bytes = await readTokenizerFile(files, name);
  return parse(files.label(name), bytes?.toString('utf8') ?? '{}', settingsSchema);
}

function parse<T>(path: string, text: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (error) {
    throw broken(path, error);
  }
}

function broken(path: string, cause: unknown): ModelError {
  const reason =
    cause instanceof z.ZodError ? firstIssue(cause) : cause instanceof Error ? cause.message : String(cause);
  return new ModelError(`${path} is no usable tokenizer file: ${reason}.`, {
    hint: 'Copy the file again from the model it belongs to.',
    cause,
  });
}

function firstIssue({issues}: z.ZodError): string {
  const [issue] = issues;
  return issue ? `${issue.path.join('.') || 'the file'}: ${issue.message}` : 'wrong shape';
}
