import {ModelError} from '../../util/errors.js';
import type {TensorStore} from '../tensor-store.js';
import {readGgufModel} from './config.js';
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

/** Told here by the names that the file has for them. */
function requireTensors({path, tensors}: GgufFile, {blockNames}: GgufFamily, numLayers: number): void {
  const need = (name: string): void => {
    if (!tensors.has(name)) throw new ModelError(`${path}: tensor "${name}" is missing.`);
  };
  need('output_norm.weight');
  for (let layer = 0; layer < numLayers; layer++) {
    for (const block of Object.keys(blockNames)) need(`blk.${layer}.${block}.weight`);
  }
}
