import {existsSync, statSync} from 'node:fs';
import {readdir, readFile, stat} from 'node:fs/promises';
import {basename, dirname, join} from 'node:path';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {ModelError, systemCode} from '../util/errors.js';
import {renderConfig} from './config-text.js';
import {requirePlainFiles} from './folder-files.js';
import {openGgufWeights} from './gguf/weights.js';
import {parseJson} from './json.js';
import type {TensorInfo, TensorSpec} from './safetensors-header.js';
import {type TensorSource, type WriteOptions, writeSafetensors} from './safetensors-writer.js';
import {openTensors, type TensorStore} from './tensor-store.js';
import {filesIn, folderTokenizer, ggufTokenizerFiles, isFile, openTokenizerFiles} from './tokenizer-files.js';

/** An open Hugging Face model folder, or a GGUF file, which is read as one. */
export interface ModelFolder {
  readonly path: string;
  /** The file that says what `config` does, for messages. */
  readonly configFile: string;
  /** `config.json`, parsed; what its keys mean is the model's business. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: TensorStore;
  /** Which of the tokenizer's and generation's files there are, by name. */
  readonly tokenizerFiles: readonly string[];
  close(): Promise<void>;
}

/** What goes into a new model folder. */
export interface ModelFolderContent extends WriteOptions {
  readonly config: Readonly<Record<string, unknown>>;
  readonly entries: readonly TensorSpec[];
  /** Called once for each entry, in order. */
  readonly read: TensorSource;
  /** A model whose tokenizer files are copied byte for byte. */
  readonly copyFrom?: string;
  /** A folder whose record of origin, the {@link ORIGIN_FILES} that it has, is copied, and says from then on that weights were trained. */
  readonly originFrom?: string;
  /**
   * Further files by name, such as `downcycle.json` or `README.md`; they win over copied ones. A function is asked once
   * the tensors are written.
   */
  readonly extraFiles?: Readonly<Record<string, string | Uint8Array | (() => string)>>;
}

/**
 * The files that say where a mixture of experts came from.
 *
 * The neurons' file is safetensors under another ending: loaders that take every `*.safetensors` of a folder must not take it.
 */
export const ORIGIN_FILES = {record: 'downcycle.json', neurons: 'neurons.st'} as const;

const CONFIG = 'config.json';

/**
 * Opens a model: reads the config of a folder and the heads of its safetensors, or the head of a GGUF file; no weights yet.
 *
 * @throws ModelError if the folder, its config or its safetensors, or the file, are missing or damaged,
 * or something else stands in place of one of its files.
 */
export async function openModelFolder(path: string): Promise<ModelFolder> {
  if (await isFile(path)) return openGgufModel(path);
  await expectFolder(path);
  const {config, file: configFile} = await readFolderConfig(path);
  const tensors = await openTensors(path);
  return {path, configFile, config, tensors, tokenizerFiles: folderTokenizer(path).names, close: () => tensors.close()};
}

async function openGgufModel(path: string): Promise<ModelFolder> {
  const {config, metadata, tensors} = await openGgufWeights(path);
  const {names} = ggufTokenizerFiles(path, metadata);
  return {path, configFile: path, config, tensors, tokenizerFiles: names, close: () => tensors.close()};
}

/** Whether a model lies there, whole or damaged. */
export function isModel(path: string): boolean {
  return existsSync(join(path, CONFIG)) || statSync(path, {throwIfNoEntry: false})?.isFile() === true;
}

/**
 * Writes a model folder that is either whole or absent, with sharded safetensors if they are large.
 *
 * @throws EnvironmentError if something stands at `path` or the disk is full; nothing is left behind then.
 * @throws ModelError if the entries or what `read` gives cannot be written; nothing is left behind then either.
 */
export async function writeModelFolder(path: string, content: ModelFolderContent): Promise<void> {
  const {config, entries, read, copyFrom, originFrom, extraFiles = {}, ...options} = content;
  const files: NonNullable<ModelFolderContent['extraFiles']> = {
    ...extraFiles,
    [CONFIG]: renderConfig(config),
  };
  for (const name of Object.keys(extraFiles)) checkExtraFile(name);
  await writeFolderAtomic(path, async (part) => {
    if (copyFrom !== undefined) await copyTokenizer(copyFrom, part);
    if (originFrom !== undefined) await copyOrigin(originFrom, part);
    await writeSafetensors(part, entries, read, options);
    for (const [name, data] of Object.entries(files)) {
      await writeFileAtomic(join(part, name), typeof data === 'function' ? data() : data);
    }
  });
}

/**
 * The tensor called `name`, which must have the shape that the config asks for.
 *
 * @throws ModelError if it is missing or has another shape.
 */
export function expectTensor(store: TensorStore, name: string, shape: readonly number[]): TensorInfo {
  const asked = `[${shape.join(', ')}]`;
  if (!store.has(name)) {
    throw new ModelError(`${store.path}: tensor "${name}" is missing, ${store.asker} asks for it with shape ${asked}.`);
  }
  const info = store.info(name);
  const isSame = info.shape.length === shape.length && shape.every((size, axis) => size === info.shape[axis]);
  if (isSame) return info;
  throw new ModelError(
    `${store.path}: tensor "${name}" has shape [${info.shape.join(', ')}], ${store.asker} asks for ${asked}.`,
  );
}

async function expectFolder(path: string): Promise<void> {
  const found = await stat(path).catch(() => null);
  if (found?.isDirectory()) return;
  throw new ModelError(
    `${path}: ${found ? 'this is neither a file nor a folder' : 'there is no such file or folder'}.`,
    {
      hint: `A model is a Hugging Face folder with ${CONFIG} and safetensors, or a GGUF file.`,
    },
  );
}

/** The config of a model, and the file that says it. */
export interface ModelConfig {
  readonly config: Readonly<Record<string, unknown>>;
  readonly file: string;
}

/** The config of a model; no weights are looked for. @throws ModelError if it is missing or no JSON object. */
export async function readModelConfig(path: string): Promise<ModelConfig> {
  if (!(await isFile(path))) return readFolderConfig(path);
  const {config, tensors} = await openGgufWeights(path);
  await tensors.close();
  return {config, file: path};
}

/** The files of a model besides those of its tokenizer, which are looked at by whoever reads them. */
function isOfModel(name: string): boolean {
  return (
    name === CONFIG || /\.safetensors(\.index\.json)?$/.test(name) || Object.values<string>(ORIGIN_FILES).includes(name)
  );
}

async function readFolderConfig(path: string): Promise<ModelConfig> {
  await requirePlainFiles(path, isOfModel);
  const file = join(path, CONFIG);
  return {config: jsonObject(await readConfigText(file), file), file};
}

/** What a JSON file of a model says. @throws ModelError naming the line, or that it is no object. */
export function jsonObject(text: string, file: string): Readonly<Record<string, unknown>> {
  const json = parseJson(text);
  if (json.kind === 'fault') throw new ModelError(`${file}:${json.line}:${json.column}: ${json.reason}.`);
  if (!isObject(json.value)) throw new ModelError(`${file}: this must be a JSON object.`);
  return json.value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function readConfigText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === 'ENOTDIR') await expectFolder(dirname(path));
    if (systemCode(cause) !== 'ENOENT') throw cause;
    throw new ModelError(`${path}: there is no such file.`, {hint: await whereModelIs(dirname(path)), cause});
  }
}

/** A run, its checkpoints and the folder of a GGUF file are given as models; the model lies further in. */
async function whereModelIs(folder: string): Promise<string> {
  const names = await readdir(folder).catch((): string[] => []);
  if (names.includes('model')) return `Give the folder of the model in it: ${join(folder, 'model')}.`;
  const gguf = names.find((name) => name.endsWith('.gguf'));
  if (gguf !== undefined) return `Give the file: ${join(folder, gguf)}.`;
  const steps = names.filter((name) => /^step-\d+$/.test(name));
  const last = steps.sort((a, b) => stepOf(a) - stepOf(b)).at(-1);
  if (last === undefined) return 'Give the folder of a Hugging Face model.';
  return `This is a run; give one of its models, e.g. ${join(folder, last, 'model')}.`;
}

function stepOf(name: string): number {
  return Number(name.slice('step-'.length));
}

async function copyTokenizer(from: string, to: string): Promise<void> {
  const files = await openTokenizerFiles(from);
  for (const name of files.names) {
    const bytes = await files.read(name);
    if (bytes) await writeFileAtomic(join(to, name), bytes);
  }
}

/** Read and written, not `copyFile`d: a copy would keep the rights of the source, which may be read-only. */
async function copyFiles(from: string, to: string, names: readonly string[]): Promise<void> {
  for (const name of filesIn(from, names)) await writeFileAtomic(join(to, name), await readFile(join(from, name)));
}

async function copyOrigin(from: string, to: string): Promise<void> {
  await copyFiles(from, to, [ORIGIN_FILES.neurons]);
  for (const name of filesIn(from, [ORIGIN_FILES.record])) {
    const json = parseJson(await readFile(join(from, name), 'utf8'));
    if (json.kind === 'value' && isObject(json.value)) {
      await writeFileAtomic(join(to, name), `${JSON.stringify({...json.value, trained: true}, null, 2)}\n`);
    } else await copyFiles(from, to, [name]); // whoever reads it says what is wrong with it
  }
}

function checkExtraFile(name: string): void {
  const isTaken = name === CONFIG || (name.startsWith('model') && name.includes('safetensors'));
  if (isTaken || name === '' || name === '..' || basename(name) !== name) {
    throw new RangeError(`"${name}" cannot be an extra file of a model folder`);
  }
}
