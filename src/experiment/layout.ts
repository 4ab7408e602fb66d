// Where an experiment keeps what it makes, and what a model folder is.
import {join} from 'node:path';
import type {Config} from '../config/schema.js';
import {readModelConfig} from '../format/model-folder.js';
import type {Architecture} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';

/** Where the parts of an experiment lie. */
interface Layout {
  /** `checkpoints/<name>` */
  readonly root: string;
  readonly shards: string;
  readonly profile: string;
}

/** The folders of an experiment. */
export function layoutOf({name}: Config): Layout {
  const root = join('checkpoints', name);
  return {root, shards: join(root, 'shards'), profile: join(root, 'profile')};
}

/**
 * The architecture of a model folder.
 *
 * @throws ModelError if its config.json is missing, damaged or of an unknown family.
 */
export async function architectureOf(folder: string): Promise<Architecture> {
  const path = join(folder, 'config.json');
  return architectureFromConfig(await readModelConfig(path), path);
}
