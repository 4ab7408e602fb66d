// A model on disk that another is made out of.
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import {countStored} from '../format/safetensors-header.js';
import type {Architecture} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';
import {FAMILIES} from '../model/family/registry.js';
import {modelFingerprint} from '../model/fingerprint.js';
import {checkTensors} from '../model/load.js';
import {ModelError} from '../util/errors.js';
import {readProvenance} from './provenance.js';

/** An open model. */
export interface OpenModel {
  readonly folder: ModelFolder;
  readonly architecture: Architecture;
  /** What its files hold beyond what its config asks for, in words. */
  readonly warnings: readonly string[];
}

/** An open model that another is made out of. */
export interface ModelSource extends OpenModel {
  /** Name table of its family. */
  readonly names: Readonly<Record<string, string>>;
  readonly fingerprint: string;
}

/** An open dense model. */
export interface DenseSource extends ModelSource {
  /** Width of every FFN. */
  readonly numNeurons: number;
}

/** What tells a dense model from others: what a profile records of the one that it was made on. */
export function modelRecord({fingerprint, architecture, numNeurons}: DenseSource) {
  return {fingerprint, layers: architecture.ffn.length, ffnWidth: numNeurons};
}

/** What a model records of the one that it was made out of. */
export function sourceRecord({folder, fingerprint}: ModelSource, revision: string | undefined) {
  const tensors = folder.tensors.names.map((name) => folder.tensors.info(name));
  const isPacked = tensors.some(({packed}) => packed !== undefined);
  return {path: folder.path, revision: revision ?? null, fingerprint, ...(isPacked && {gguf: countStored(tensors)})};
}

/**
 * Opens a model, dense or not.
 *
 * @throws ModelError if the folder is damaged, of an unknown family or does not fit its config.
 */
export function openModel(path: string): Promise<OpenModel> {
  return open(path, () => Promise.resolve({}));
}

/** The same to make another out of; reads it once for its fingerprint. */
export function openSource(path: string): Promise<ModelSource> {
  return open(path, sourceOf);
}

/**
 * The same of a dense model.
 *
 * @throws ModelError as {@link openSource} does, and if it is a mixture.
 */
export function openDense(path: string): Promise<DenseSource> {
  return open(path, async (model) => {
    const numNeurons = denseWidth(model.architecture) ?? (await refuseMixture(path));
    return {...(await sourceOf(model)), numNeurons};
  });
}

/** What the files of a model hold beyond what its config asks for, in words. @throws ModelError as {@link openModel} does. */
export async function modelWarnings(path: string): Promise<readonly string[]> {
  const {folder, warnings} = await openModel(path);
  await folder.close();
  return warnings;
}

async function open<T>(path: string, more: (model: OpenModel) => Promise<T>): Promise<OpenModel & T> {
  const folder = await openModelFolder(path);
  try {
    const architecture = architectureFromConfig(folder.config, folder.configFile);
    const model = {folder, architecture, warnings: await checkTensors(folder.tensors, architecture)};
    return {...model, ...(await more(model))};
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function sourceOf({folder, architecture}: OpenModel): Promise<Omit<ModelSource, keyof OpenModel>> {
  const {names} = FAMILIES[architecture.family];
  return {names, fingerprint: await modelFingerprint(folder, architecture)};
}

function denseWidth({ffn}: Architecture): number | null {
  const [first] = ffn;
  return first?.kind === 'dense' && ffn.every(({kind}) => kind === 'dense') ? first.width : null;
}

/** @throws ModelError that says what the mixture was made from, as far as its record does. */
async function refuseMixture(path: string): Promise<never> {
  const origin = await readProvenance(path).catch(() => null);
  const made = origin && origin.kind !== 'scratch' ? origin : null;
  const dense = made && made.kind !== 'inner-split' ? `: ${made.source.path}` : '';
  const verb = made?.kind === 'split' || made?.kind === 'inner-split' ? 'cut out of' : 'copied from';
  const how = made ? `, ${verb} ${made.source.path} by ${made.method.method}` : '';
  throw new ModelError(`${path}: this is a mixture of experts already${how}; a dense model is needed.`, {
    hint: `Give the dense model that it was made from${dense}. Only method cmoe cuts a mixture: each of its experts once more.`,
  });
}
