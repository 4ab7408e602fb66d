import {readModelConfig} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';
import {architectureFromConfig} from './config.js';

/**
 * The architecture of a model folder or a GGUF file.
 *
 * @throws ModelError if its config is missing, damaged or of an unknown family.
 */
export async function readArchitecture(model: string): Promise<Architecture> {
  const {config, file} = await readModelConfig(model);
  return architectureFromConfig(config, file);
}
