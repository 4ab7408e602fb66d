// A tokenizer.json and tokenizer_config.json out of what a GGUF file holds, where they are what the model's own would be.
import {ModelError} from '../../util/errors.js';
import type {Metadata, MetadataList} from './metadata.js';

/** How text is cut before pairs are merged. */
interface PreTokenizer {
  readonly normalizer: object | null;
  readonly steps: readonly object[];
  /** Whether a piece that is a token is taken for one whatever the merges say. */
  readonly ignoreMerges: boolean;
  /** Whether a text begins with the begin token if the file says nothing. */
  readonly addsBos: boolean;
}

const PREFIX = 'tokenizer.ggml.';
/** What kinds of tokens are called by number. */
const [CONTROL, USER_DEFINED, UNUSED] = [3, 4, 5];

const BYTES = {type: 'ByteLevel', add_prefix_space: false, trim_offsets: true};
const GPT2: PreTokenizer = {
  normalizer: null,
  steps: [{...BYTES, use_regex: true}],
  ignoreMerges: false,
  addsBos: false,
};
const SINGLE_DIGITS: PreTokenizer = {...GPT2, steps: [{type: 'Digits', individual_digits: true}, ...GPT2.steps]};
const LLAMA3: PreTokenizer = {...GPT2, steps: splitting('{1,3}'), ignoreMerges: true, addsBos: true};
const QWEN2: PreTokenizer = {...GPT2, normalizer: {type: 'NFC'}, steps: splitting('')};

/**
 * What `tokenizer.ggml.pre` says; each name is given to the tokenizers of one maker, by a hash of what they do.
 *
 * Others are left out, since llama.cpp gives them to tokenizers that differ in what it does not heed, such as normal forms.
 */
const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  'gpt-2': GPT2,
  smollm: SINGLE_DIGITS,
  starcoder: SINGLE_DIGITS,
  'llama-bpe': LLAMA3,
  qwen2: QWEN2,
};

/** The pattern of cl100k and its kin, with numbers cut into runs of so many digits. */
function splitting(digits: string): object[] {
  const Regex = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
  return [
    {type: 'Split', pattern: {Regex}, behavior: 'Isolated', invert: false},
    {...BYTES, use_regex: false},
  ];
}

/** Whether a tokenizer can be made of a file, or why not. */
export type GgufTokenizer =
  | {readonly kind: 'whole'; readonly pre: PreTokenizer}
  | {readonly kind: 'partial'; readonly reason: string};

/**
 * Whether a file says all of a tokenizer.
 *
 * Of byte-level BPE of a known kind it does. Of SentencePiece it does not: neither the merges nor what becomes of blanks.
 */
export function ggufTokenizer(metadata: Metadata): GgufTokenizer {
  const [model, pre] = [metadata.get(`${PREFIX}model`), metadata.get(`${PREFIX}pre`)];
  const partial = (reason: string): GgufTokenizer => ({kind: 'partial', reason});
  if (model === undefined) return partial('it holds no vocabulary');
  if (model !== 'gpt2')
    return partial(`its vocabulary is of kind ${JSON.stringify(model)}, and only of gpt2 it says all`);
  const known = typeof pre === 'string' && Object.hasOwn(PRE_TOKENIZERS, pre) ? PRE_TOKENIZERS[pre] : undefined;
  if (known) return {kind: 'whole', pre: known};
  const found = pre === undefined ? 'missing' : JSON.stringify(pre);
  return partial(`${PREFIX}pre is ${found}, known are ${Object.keys(PRE_TOKENIZERS).join(', ')}`);
}

/** The text of tokenizer.json. @throws ModelError naming the key whose list is missing or damaged. */
export function tokenizerJson(metadata: Metadata, pre: PreTokenizer, path: string): string {
  const vocabulary = readVocabulary(metadata, path);
  return JSON.stringify(definitionOf(vocabulary, pre, addedAround(metadata, vocabulary.tokens, pre)));
}

/** The text of tokenizer_config.json. @throws ModelError if the list of tokens is missing or damaged. */
export function tokenizerSettings(metadata: Metadata, pre: PreTokenizer, path: string): string {
  const settings = settingsOf(metadata, listOf(metadata, 'tokens', path).texts(), pre);
  return `${JSON.stringify(settings, null, 2)}\n`;
}

/** The tokens of a file by id; null without a vocabulary. @throws ModelError if it is damaged. */
export function ggufTokens(metadata: Metadata, path: string): string[] | null {
  return metadata.has(`${PREFIX}tokens`) ? listOf(metadata, 'tokens', path).texts() : null;
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly merges: readonly string[];
}

function readVocabulary(metadata: Metadata, path: string): Vocabulary {
  const tokens = listOf(metadata, 'tokens', path).texts();
  const types = listOf(metadata, 'token_type', path).numbers();
  const merges = listOf(metadata, 'merges', path).texts();
  if (types.length !== tokens.length) {
    throw new ModelError(`${path}: ${PREFIX}token_type has ${types.length} entries for ${tokens.length} tokens.`);
  }
  const seen = new Set<string>();
  const twice = tokens.find((token) => seen.size === seen.add(token).size);
  if (twice !== undefined)
    throw new ModelError(`${path}: token ${JSON.stringify(twice)} stands twice in ${PREFIX}tokens.`);
  const odd = merges.find((merge) => !/^[^ ]+ [^ ]+$/.test(merge));
  if (odd !== undefined) throw new ModelError(`${path}: ${PREFIX}merges has ${JSON.stringify(odd)}, which is no pair.`);
  return {tokens, types, merges};
}

function listOf(metadata: Metadata, name: string, path: string): MetadataList {
  const list = metadata.get(`${PREFIX}${name}`);
  if (typeof list === 'object') return list;
  throw new ModelError(`${path}: ${PREFIX}${name} is ${list === undefined ? 'missing' : 'no list'}.`);
}

/** How many tokens are words of the model: rows without a token at the end are none, and added ones before them stand apart. */
function countWords({types}: Vocabulary): {readonly words: number; readonly all: number} {
  const all = types.findLastIndex((type) => type !== UNUSED) + 1;
  const words = types.findLastIndex((type, id) => id < all && type !== CONTROL && type !== USER_DEFINED) + 1;
  return {words, all};
}

function definitionOf(vocabulary: Vocabulary, pre: PreTokenizer, around: object | null): object {
  const {tokens, types, merges} = vocabulary;
  const {words, all} = countWords(vocabulary);
  const added = tokens.slice(0, all).flatMap((content, id) => {
    if (types[id] !== CONTROL && types[id] !== USER_DEFINED) return [];
    const plain = {single_word: false, lstrip: false, rstrip: false, normalized: false};
    return [{id, content, ...plain, special: types[id] === CONTROL}];
  });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: pre.normalizer,
    pre_tokenizer: {type: 'Sequence', pretokenizers: pre.steps},
    post_processor: around,
    decoder: {type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true},
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.ignoreMerges,
      vocab: Object.fromEntries(tokens.slice(0, words).map((token, id) => [token, id])),
      merges,
    },
  };
}

/** Names of special tokens in settings, and the keys that say which they are. */
const SPECIAL = {
  bos_token: 'bos_token_id',
  eos_token: 'eos_token_id',
  unk_token: 'unknown_token_id',
  pad_token: 'padding_token_id',
};

function settingsOf(metadata: Metadata, tokens: readonly string[], pre: PreTokenizer): object {
  const special = Object.entries(SPECIAL).flatMap(([name, key]) => {
    const id = metadata.get(`${PREFIX}${key}`);
    const token = typeof id === 'number' ? tokens[id] : undefined;
    return token === undefined ? [] : [[name, token] as const];
  });
  const template = metadata.get('tokenizer.chat_template');
  return {
    ...Object.fromEntries(special),
    ...addsAround(metadata, pre),
    clean_up_tokenization_spaces: false,
    ...(typeof template === 'string' && {chat_template: template}),
    tokenizer_class: 'PreTrainedTokenizerFast',
  };
}

function addsAround(metadata: Metadata, {addsBos}: PreTokenizer) {
  const flag = (name: string, otherwise: boolean): boolean => (metadata.get(`${PREFIX}${name}`) ?? otherwise) === true;
  return {add_bos_token: flag('add_bos_token', addsBos), add_eos_token: flag('add_eos_token', false)};
}

/** Tokens that are put before and after a text, said in tokenizer.json too, since not every reader heeds the settings. */
function addedAround(metadata: Metadata, tokens: readonly string[], pre: PreTokenizer): object | null {
  const {add_bos_token: before, add_eos_token: after} = addsAround(metadata, pre);
  const piece = (key: string): {id: number; token: string}[] => {
    const id = metadata.get(`${PREFIX}${key}`);
    const token = typeof id === 'number' ? tokens[id] : undefined;
    return typeof id === 'number' && token !== undefined ? [{id, token}] : [];
  };
  const [bos, eos] = [before ? piece('bos_token_id') : [], after ? piece('eos_token_id') : []];
  if (bos.length + eos.length === 0) return null;
  const named = (list: typeof bos, type: number) => list.map(({token}) => ({SpecialToken: {id: token, type_id: type}}));
  const sequence = (id: string, type: number) => [
    ...named(bos, type),
    {Sequence: {id, type_id: type}},
    ...named(eos, type),
  ];
  const special_tokens = [...bos, ...eos].map(
    ({id, token}) => [token, {id: token, ids: [id], tokens: [token]}] as const,
  );
  return {
    type: 'TemplateProcessing',
    single: sequence('A', 0),
    pair: [...sequence('A', 0), ...sequence('B', 1)],
    special_tokens: Object.fromEntries(special_tokens),
  };
}
