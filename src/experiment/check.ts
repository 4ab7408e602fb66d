import {stat} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import {requireDivisible} from '../downcycle/allocation.js';
import {readModelConfig} from '../format/model-folder.js';
import {architectureFromConfig} from '../model/config.js';
import {ConfigError} from '../util/errors.js';

/**
 * Refuses a config whose model or text is not there, before an engine is started for it.
 *
 * @throws ConfigError naming the key that holds the path.
 */
export async function checkPaths({config, at}: LoadedConfig): Promise<void> {
  await requireExisting(config.model, 'model', at(['model']));
  for (const [i, {path}] of config.data.sources.entries()) {
    await requireExisting(path, `data.sources[${i}].path`, at(['data', 'sources', i, 'path']));
  }
}

/**
 * The same, and refuses arms that cannot be made of the dense model whatever calibration says.
 *
 * @throws ConfigError naming the key at fault; ModelError if the dense model's config.json is damaged.
 */
export async function checkArms(loaded: LoadedConfig, arms: readonly string[]): Promise<void> {
  const {config, at} = loaded;
  await checkPaths(loaded);
  for (const arm of arms) {
    const options = config.arms[arm];
    if (!options || 'like' in options) continue;
    if (options.method === 'sparse-upcycle') {
      if (options.from !== undefined)
        await requireExisting(options.from, `arms.${arm}.from`, at(['arms', arm, 'from']));
      continue;
    }
    const path = join(config.model, 'config.json');
    const [first] = architectureFromConfig(await readModelConfig(path), path).ffn;
    if (first?.kind === 'dense') requireDivisible(first.width, options, `${at(['arms', arm])}: arms.${arm}`);
  }
}

async function requireExisting(path: string, key: string, where: string): Promise<void> {
  if (await stat(path).catch(() => null)) return;
  throw new ConfigError(`${where}: ${key}: ${path} is not there.`, {
    hint: 'Correct the path; relative ones start from the working directory.',
  });
}
