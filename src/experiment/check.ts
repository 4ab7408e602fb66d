import {stat} from 'node:fs/promises';
import type {LoadedConfig} from '../config/load.js';
import {findMissing} from '../data/path.js';
import {requireDivisible} from '../downcycle/allocation.js';
import {requireDivable} from '../downcycle/dive.js';
import {isDive} from '../downcycle/dive-options.js';
import {hasExperts, requireCuttable} from '../downcycle/inner/plan.js';
import type {MethodOptions} from '../downcycle/options.js';
import {requireShards} from '../downcycle/upcycle/granular.js';
import {isUpcycle} from '../downcycle/upcycle-options.js';
import {readArchitecture} from '../model/read-architecture.js';
import {ConfigError} from '../util/errors.js';

/**
 * Refuses a config whose model or text is not there, before an engine is started for it.
 *
 * @throws ConfigError naming the key that holds the path.
 */
export async function checkPaths({config, at}: LoadedConfig): Promise<void> {
  await requireExisting(config.model, 'model', at(['model']));
  for (const [i, {path}] of config.data.sources.entries()) {
    const missing = await findMissing(path);
    if (missing !== null) throw notThere(missing, `data.sources[${i}].path`, at(['data', 'sources', i, 'path']));
  }
}

/**
 * The same, and refuses arms that cannot be made of the dense model whatever calibration says.
 *
 * @throws ConfigError naming the key at fault; ModelError if the dense model's config.json is damaged.
 */
export async function checkArms(loaded: LoadedConfig, arms: readonly string[]): Promise<void> {
  await checkPaths(loaded);
  await checkLength(loaded);
  for (const arm of arms) {
    const options = loaded.config.arms[arm];
    if (!options || 'like' in options) continue;
    await checkArm(loaded, arm, options);
  }
}

async function checkLength({config, at}: LoadedConfig): Promise<void> {
  const {sequenceLength} = config.data;
  const {contextLength} = await readArchitecture(config.model);
  if (sequenceLength <= contextLength) return;
  throw new ConfigError(
    `${at(['data', 'sequenceLength'], ['data'])}: data.sequenceLength is ${sequenceLength}, ${config.model} has ${contextLength} positions (max_position_embeddings).`,
    {hint: `Lower data.sequenceLength to ${contextLength} or less.`},
  );
}

async function checkArm({config, at}: LoadedConfig, arm: string, options: MethodOptions): Promise<void> {
  const key = `arms.${arm}`;
  if (isDive(options)) {
    const {data, profile, model} = config;
    // Tasks by a field of records are counted when they are read.
    const tasks = profile.task === 'source' ? data.sources.length : Number.POSITIVE_INFINITY;
    const sizes = {tasks, sampleTokens: profile.tokensPerSample};
    const numNeurons = await denseWidth(model);
    if (numNeurons !== null) requireDivable(options, {...sizes, numNeurons}, `${at(['arms', arm])}: ${key}`);
    return;
  }
  if (!isUpcycle(options)) {
    const architecture = await readArchitecture(config.model);
    const [first] = architecture.ffn;
    const where = `${at(['arms', arm, 'experts'], ['arms', arm])}: ${key}`;
    if (options.method === 'cmoe' && hasExperts(architecture)) {
      requireCuttable(architecture, options, config.model, where);
      return;
    }
    if (first?.kind === 'dense') requireDivisible(first.width, options, where);
    return;
  }
  const {from} = options;
  if (from !== undefined) await requireExisting(from, `${key}.from`, at(['arms', arm, 'from']));
  if (options.method !== 'granular-upcycle') return;
  const width = await denseWidth(from ?? config.model);
  if (width !== null) requireShards(width, options, `${at(['arms', arm, 'shards'])}: ${key}`);
}

/** Width of a dense model's FFNs; null if it is a mixture, which is refused when it is opened. */
async function denseWidth(model: string): Promise<number | null> {
  const [first] = (await readArchitecture(model)).ffn;
  return first?.kind === 'dense' ? first.width : null;
}

async function requireExisting(path: string, key: string, where: string): Promise<void> {
  if (!(await stat(path).catch(() => null))) throw notThere(path, key, where);
}

function notThere(path: string, key: string, where: string): ConfigError {
  return new ConfigError(`${where}: ${key}: ${path} is not there.`, {
    hint: 'Correct the path; relative ones start from the working directory.',
  });
}
