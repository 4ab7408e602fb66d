import {ModelError} from '../../util/errors.js';
import type {TensorStore} from '../tensor-store.js';
import {hasBiases, readGgufModel} from './config.js';
import {type GgufFile, openGguf} from './file.js';
import type {Metadata} from './metadata.js';
import type {GgufFamily} from './names.js';
import {ggufTensors} from './tensors.js';

/** An open GGUF file as a model. */
export interface GgufWeights {
  /** As a config.json would be. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly metadata: Metadata;
  /** Closes the file with it. */
  readonly tensors: TensorStore;
}

/**
 * Opens a GGUF file as a model.
 *
 * @throws ModelError naming file, key or tensor if it is damaged, packed in a way that is not read, of an architecture that is
 * not known, or lacks a tensor.
 */
export async function openGgufWeights(path: string): Promise<GgufWeights> {
  const file = await openGguf(path);
  try {
    const {config, family, headDim} = await readGgufModel(file);
    requireTensors(file, family, Number(config.num_hidden_layers));
    return {config, metadata: file.metadata, tensors: ggufTensors(file, family, headDim)};
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Told here by the names that the file has for them: what lacks, and what would change what the model computes. */
function requireTensors(file: GgufFile, family: GgufFamily, numLayers: number): void {
  const {path, tensors} = file;
  const biased = hasBiases(file, family) ? family.biases.blocks : [];
  const blocks = [
    ...Object.keys(family.blockNames).map((block) => `${block}.weight`),
    ...biased.map((block) => `${block}.bias`),
  ];
  const needed = ['output_norm.weight'];
  for (let layer = 0; layer < numLayers; layer++) needed.push(...blocks.map((block) => `blk.${layer}.${block}`));
  const missing = needed.find((name) => !tensors.has(name));
  if (missing !== undefined) throw new ModelError(`${path}: tensor "${missing}" is missing.`);
  const known = new Set(needed);
  const other = [...tensors.keys()].find((name) => CHANGES.test(name) && !known.has(name));
  if (other === undefined) return;
  throw new ModelError(
    `${path}: tensor "${other}" is none of a ${family.modelType} model of ${numLayers} layers here.`,
    {
      hint: 'What it changes is not computed; a Hugging Face folder of the model may be of a family that is.',
    },
  );
}

/** Tensors that something is computed with, but for a table of positions that old files have. */
const CHANGES = /^blk\.\d+\.(?!attn_rot_embd\.)|\.bias$/;
