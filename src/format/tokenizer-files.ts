// The files that say how a model's text becomes ids: those of its folder, or what a GGUF file holds of them.
import {existsSync} from 'node:fs';
import {readFile, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {type ErrorDetails, ModelError, systemCode} from '../util/errors.js';
import {requirePlainFiles} from './folder-files.js';
import {openGguf} from './gguf/file.js';
import type {Metadata} from './gguf/metadata.js';
import {ggufTokenizer, ggufTokens, tokenizerJson, tokenizerSettings} from './gguf/tokenizer.js';

/** The tokenizer's and generation's files of a model. */
export interface TokenizerFiles {
  /** Those that there are. */
  readonly names: readonly string[];
  /** What to call one in messages. */
  readonly label: (name: string) => string;
  /** The bytes of one; null if there is none of that name. @throws ModelError if the model has another vocabulary. */
  readonly read: (name: string) => Promise<Buffer | null>;
  /** The error of a model without tokenizer.json. */
  readonly lacking: (details: ErrorDetails) => ModelError;
}

const DEFINITION = 'tokenizer.json';
const SETTINGS = 'tokenizer_config.json';
const TOKENIZER_FILES = [
  DEFINITION,
  SETTINGS,
  'special_tokens_map.json',
  'tokenizer.model',
  'merges.txt',
  'vocab.json',
  'added_tokens.json',
  'chat_template.jinja',
  'generation_config.json',
];

/** Those of a folder or of a GGUF file. @throws ModelError if the file is damaged, or something else stands in place of a file of the folder. */
export async function openTokenizerFiles(model: string): Promise<TokenizerFiles> {
  if (!(await isFile(model))) {
    await requirePlainFiles(model, isOfTokenizer);
    return folderTokenizer(model);
  }
  const file = await openGguf(model);
  await file.close();
  if (ggufTokenizer(file.metadata).kind === 'partial') await requirePlainFiles(dirname(model), isOfTokenizer); // it lies beside
  return ggufTokenizerFiles(model, file.metadata);
}

function isOfTokenizer(name: string): boolean {
  return TOKENIZER_FILES.includes(name);
}

/** Those that lie in a folder. */
export function folderTokenizer(folder: string): TokenizerFiles {
  return {
    names: filesIn(folder, TOKENIZER_FILES),
    label: (name) => join(folder, name),
    read: (name) =>
      readFile(join(folder, name)).catch((error: unknown) => {
        if (systemCode(error) === 'ENOENT') return null;
        throw error;
      }),
    lacking: ({cause}) =>
      new ModelError(`${join(folder, DEFINITION)} does not exist; a model folder needs its tokenizer.`, {
        hint: 'Copy tokenizer.json beside the weights; older formats are converted by transformers (save_pretrained).',
        cause,
      }),
  };
}

/** Those made of what a GGUF file holds, if that is all of a tokenizer; else those that lie beside it. */
export function ggufTokenizerFiles(path: string, metadata: Metadata): TokenizerFiles {
  const found = ggufTokenizer(metadata);
  if (found.kind === 'partial') return besideTokenizer(path, metadata, found.reason);
  const makers: Readonly<Record<string, () => string>> = {
    [DEFINITION]: () => tokenizerJson(metadata, found.pre, path),
    [SETTINGS]: () => tokenizerSettings(metadata, found.pre, path),
  };
  return {
    names: Object.keys(makers),
    label: (name) => `${path} (its ${name})`,
    read: (name) =>
      new Promise((resolve) => {
        const text = makers[name]?.();
        resolve(text === undefined ? null : Buffer.from(text));
      }),
    lacking: (details) => new ModelError(`${path}: there is no tokenizer.`, details),
  };
}

/** What lies beside a file whose tokenizer is not whole: believed if its tokens are those of the file. */
function besideTokenizer(path: string, metadata: Metadata, reason: string): TokenizerFiles {
  const beside = folderTokenizer(dirname(path));
  const isThere = beside.names.includes(DEFINITION);
  return {
    ...beside,
    names: isThere ? beside.names : [],
    read: async (name) => {
      const bytes = await beside.read(name);
      if (bytes && name === DEFINITION) requireTokens(bytes, beside.label(name), ggufTokens(metadata, path), path);
      return bytes;
    },
    lacking: ({cause}) =>
      new ModelError(`${path}: no tokenizer can be made of this file: ${reason}.`, {
        hint: `Put the model's own ${DEFINITION} and ${SETTINGS} beside it.`,
        cause,
      }),
  };
}

/** A few tokens may be spelt otherwise by who made the file; those of another model nearly all are. */
const MOST_OTHERS = 0.01;

function requireTokens(bytes: Buffer, label: string, tokens: readonly string[] | null, path: string): void {
  const vocabulary = tokens && vocabularyOf(bytes);
  if (!vocabulary) return; // whoever reads it says what is wrong with it
  const others = vocabulary.filter(([token, id]) => tokens[id] !== token);
  const [first] = others;
  if (!first || others.length <= MOST_OTHERS * vocabulary.length) return;
  const [token, id] = first;
  throw new ModelError(
    `${label} is of another model: its id ${id} is ${JSON.stringify(token)}, and in ${path} ${JSON.stringify(tokens[id] ?? null)}.`,
    {hint: `Put the ${DEFINITION} of this model beside it.`},
  );
}

/** Tokens and their ids as a tokenizer.json has them; null if it is not one. */
function vocabularyOf(bytes: Buffer): [string, number][] | null {
  try {
    const {model} = JSON.parse(bytes.toString('utf8')) as {model: {vocab: Record<string, number> | [string, number][]}};
    const {vocab} = model;
    return Array.isArray(vocab) ? vocab.map(([token], id) => [token, id]) : Object.entries(vocab);
  } catch {
    return null;
  }
}

/** Which of some files a folder has. */
export function filesIn(folder: string, names: readonly string[]): readonly string[] {
  return names.filter((name) => existsSync(join(folder, name)));
}

/** Whether a file, and no folder, is at a path. */
export async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isFile() === true;
}
