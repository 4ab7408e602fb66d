// Models that a config names by their name on the hub, replaced by the folders that they lie in.

import type {PathStep} from '../config/json-schema.js';
import type {LoadedConfig} from '../config/load.js';
import type {ArmOptions, Config} from '../config/schema.js';
import {commitOf} from '../hub/cache.js';
import {isHubName, resolveModel} from '../hub/resolve.js';
import {DowncycleError} from '../util/errors.js';
import type {CompareEvent} from './compare.js';

/** Which of a config's models are needed besides its `model`. */
export interface NeededModels {
  /** Arms that are made. */
  readonly arms?: readonly string[];
  /** Whether something is trained, for which there may be a teacher. */
  readonly teacher?: boolean;
}

/**
 * The config with folders for names on the hub; what is not in the cache is downloaded.
 *
 * Paths stay as they are, whether they are there or not, so that whoever reads them says what is wrong.
 * @throws what {@link resolveModel} throws, with the key that holds the name.
 */
export async function resolveModels(
  loaded: LoadedConfig,
  {arms = [], teacher = false}: NeededModels,
  onEvent: (event: CompareEvent) => void,
): Promise<LoadedConfig> {
  const {config} = loaded;
  const resolve = (name: string, ...path: readonly PathStep[]): Promise<string> =>
    folderOf(name, onEvent, `${loaded.at(path)}: ${path.join('.')}: `);
  const model = await resolve(config.model, 'model');
  const made: Record<string, ArmOptions> = {};
  for (const name of withParents(arms, config)) {
    const options = config.arms[name];
    if (!options || !('from' in options) || options.from === undefined) continue;
    made[name] = {...options, from: await resolve(options.from, 'arms', name, 'from')};
  }
  const {distill} = config.train;
  const from = teacher && distill ? await resolve(distill.from, 'train', 'distill', 'from') : null;
  const train = distill && from !== null ? {...config.train, distill: {...distill, from}} : config.train;
  return {...loaded, config: {...config, model, arms: {...config.arms, ...made}, train}};
}

/** A model's folder, if its name is one of the hub's; else the name. @param where what errors begin with. */
export async function folderOf(name: string, onEvent: (event: CompareEvent) => void, where = ''): Promise<string> {
  if (!(await isHubName(name))) return name;
  try {
    const onProgress = (progress: Extract<CompareEvent, {kind: 'download'}>['progress']): void =>
      onEvent({kind: 'download', progress});
    return (await resolveModel(name, {onProgress})).path;
  } catch (error) {
    if (error instanceof DowncycleError) error.message = `${where}${error.message}`;
    throw error;
  }
}

/** The commit of a model that lies in the hub's cache, for the record of what is made of it. */
export async function revisionOf(model: string): Promise<{readonly revision?: string}> {
  const revision = await commitOf(model);
  return revision === null ? {} : {revision};
}

/** Arms, and those whose architecture they take. */
function withParents(arms: readonly string[], {arms: all}: Config): string[] {
  return arms.flatMap((name) => {
    const options = all[name];
    return options && 'like' in options ? [name, options.like] : [name];
  });
}
