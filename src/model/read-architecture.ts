import {join} from 'node:path';
import {readModelConfig} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';
import {architectureFromConfig} from './config.js';

/**
 * The architecture of a model folder.
 *
 * @throws ModelError if its config.json is missing, damaged or of an unknown family.
 */
export async function readArchitecture(folder: string): Promise<Architecture> {
  const path = join(folder, 'config.json');
  return architectureFromConfig(await readModelConfig(path), path);
}
