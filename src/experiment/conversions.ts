import {readdir, rm} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import type {Config} from '../config/schema.js';
import {closeShards, ensureShards} from '../data/shards.js';
import {isDive} from '../downcycle/dive-options.js';
import type {Profile} from '../downcycle/profile-file.js';
import {measurePerplexity, type Perplexity, readWindows, type TextWindows} from '../eval/perplexity.js';
import {countParameters} from '../model/architecture.js';
import {readArchitecture} from '../model/read-architecture.js';
import {type WrittenConversions, writeConversionReport} from '../report/conversion-report.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {isAlive} from '../util/alive.js';
import {makeFolder} from '../util/atomic.js';
import {ConfigError} from '../util/errors.js';
import {withLock} from '../util/lock.js';
import {withPeakMemory} from '../util/peak-memory.js';
import {formatPercent} from '../util/percent.js';
import {begin} from './begin.js';
import {checkArms} from './check.js';
import {basisOf, type ConversionRow, keyOf, openRows} from './conversion-rows.js';
import {armsLeftOut, type ConversionTask, isSeeded, requireCounts, tasksOf} from './conversion-tasks.js';
import {layoutOf} from './layout.js';
import {type OnEvent, profileOf} from './profile.js';
import {resolveModels} from './resolve-models.js';
import {convertDive, convertSplit} from './split-arm.js';

/**
 * Converts every arm that cuts the dense model at every sparsity and seed, measures its perplexity on held-out texts and
 * writes the table.
 *
 * Each row is kept in `checkpoints/<name>/conversions/rows.jsonl` once it is there: the same command goes on where it stopped.
 * @throws ConfigError if there are no such arms, or counts that no sparsity can be had with; if there are no texts and
 * nothing is held out, or windows are longer than rows, than the model's positions or than what is measured.
 * @throws EnvironmentError if another process measures in this folder.
 */
export async function compareConversions(given: LoadedConfig, onEvent: OnEvent): Promise<WrittenConversions> {
  const tasks = tasksOf(given);
  const loaded = await resolveModels(given, {arms: Object.keys(given.config.arms)}, onEvent);
  const {config} = loaded;
  await checkArms(loaded, Object.keys(config.arms));
  await requireWindows(loaded);
  const leftOut = armsLeftOut(config);
  if (leftOut.length > 0) {
    onEvent({kind: 'stage', text: `left out, for their sparsity cannot be chosen: ${leftOut.join(', ')}`});
  }
  const folder = join(layoutOf(config).root, 'conversions');
  const onStale = (text: string): void => onEvent({kind: 'stage', text});
  return withLock(folder, onStale, () => measureTasks(loaded, tasks, folder, onEvent));
}

async function requireWindows({config, at}: LoadedConfig): Promise<void> {
  const {windowTokens, maxTokens} = config.conversions;
  const {contextLength} = await readArchitecture(config.model);
  if (windowTokens > contextLength) {
    throw new ConfigError(
      `${at(['conversions', 'windowTokens'], ['conversions'])}: conversions.windowTokens (${windowTokens}) is more than the ${contextLength} positions of ${config.model} (max_position_embeddings).`,
      {hint: `Lower it to ${contextLength} or less.`},
    );
  }
  if (windowTokens <= maxTokens) return;
  throw new ConfigError(
    `${at(['conversions', 'windowTokens'], ['conversions', 'maxTokens'], ['conversions'])}: conversions.windowTokens (${windowTokens}) is more than conversions.maxTokens (${maxTokens}): not one window would be measured.`,
    {hint: 'Lower windowTokens, or raise maxTokens.'},
  );
}

async function measureTasks(
  loaded: LoadedConfig,
  tasks: readonly ConversionTask[],
  folder: string,
  onEvent: OnEvent,
): Promise<WrittenConversions> {
  const {config} = loaded;
  const engine = await begin(config, [config.model], onEvent);
  await makeFolder(folder);
  await sweep(folder);
  const store = await openRows(join(folder, 'rows.jsonl'));
  const windows = config.conversions.texts.length > 0 ? await readTexts(config) : await heldOutTexts(loaded);
  const profile = await profileOf(loaded, (what, done, total) => onEvent({kind: 'profile', what, done, total}));
  requireCounts(loaded, tasks, profile);
  const basis = basisOf(profile, windows, config.conversions, engine);
  const rows = [await store.row(keyOf(basis, 'dense'), () => measureDense(config, windows))];
  for (const [i, task] of tasks.entries()) {
    const text = `${i + 1} of ${tasks.length}  ${task.arm} at ${formatPercent(task.sparsity)}`;
    onEvent({kind: 'stage', text: isSeeded(task.method) ? `${text}, seed ${task.seed}` : text});
    rows.push(await store.row(keyOf(basis, task), () => measureTask(loaded, task, {profile, windows, folder})));
  }
  return writeConversionReport(folder, config.name, rows);
}

interface Setting {
  readonly profile: Profile;
  readonly windows: readonly TextWindows[];
  readonly folder: string;
}

async function measureTask(
  {config, at}: LoadedConfig,
  {arm, method, sparsity, seed}: ConversionTask,
  {profile, windows, folder}: Setting,
): Promise<Omit<ConversionRow, 'key'>> {
  const out = join(folder, `${MODEL}${process.pid}`);
  try {
    const given = {out, profile, where: at(['arms', arm])};
    const {seconds, peakBytes} = await withPeakMemory<unknown>(() =>
      isDive(method) ? convertDive(method, {...config, seed}, given) : convertSplit(method, {...config, seed}, given),
    );
    const {windowTokens, oracle: isOracleAsked} = config.conversions;
    const architecture = await readArchitecture(out);
    const hasExperts = architecture.ffn.some(({kind}) => kind === 'moe');
    const perplexities = await measurePerplexity(out, windows, windowTokens);
    const oracle = isOracleAsked && hasExperts && (await measureOracle(out, windows, windowTokens));
    const measured = {perplexities, ...(oracle && {oracle}), parameters: countParameters(architecture)};
    const drawn = isSeeded(method) ? seed : null;
    return {arm, method: method.method, sparsity, seed: drawn, ...measured, seconds, peakBytes};
  } finally {
    await rm(out, {recursive: true, force: true});
  }
}

function measureOracle(model: string, windows: readonly TextWindows[], windowTokens: number): Promise<Perplexity[]> {
  return measurePerplexity(model, windows, windowTokens, {chooser: 'oracle'});
}

async function measureDense({model, conversions}: Config, windows: readonly TextWindows[]) {
  return {
    arm: 'dense',
    method: 'dense',
    sparsity: 0,
    seed: null,
    perplexities: await measurePerplexity(model, windows, conversions.windowTokens),
    parameters: countParameters(await readArchitecture(model)),
    seconds: null,
    peakBytes: null,
  };
}

async function readTexts({model, conversions: {texts, windowTokens, maxTokens}}: Config): Promise<TextWindows[]> {
  const tokenizer = await loadTokenizer(model);
  const found: TextWindows[] = [];
  for (const text of texts) found.push(await readWindows(text, tokenizer, {windowTokens, maxTokens}));
  return found;
}

/** The beginnings of validation rows spread evenly over each source's. */
async function heldOutTexts({config, at}: LoadedConfig): Promise<TextWindows[]> {
  const {windowTokens, maxTokens} = config.conversions;
  const {sequenceLength} = config.data;
  if (windowTokens > sequenceLength + 1) {
    throw new ConfigError(
      `${at(['conversions', 'windowTokens'], ['data', 'sequenceLength'])}: conversions.windowTokens (${windowTokens}) is more than a row of data.sequenceLength (${sequenceLength}) holds.`,
      {hint: 'Lower windowTokens, or name texts under `conversions.texts`.'},
    );
  }
  const sources = await ensureShards(config.data, await loadTokenizer(config.model), layoutOf(config).shards);
  try {
    const found: TextWindows[] = [];
    for (const {name, valid} of sources) {
      if (!valid) throw new ConfigError(`${at(['data'])}: source ${name} holds nothing out to measure on.`);
      const count = Math.min(valid.rows, Math.floor(maxTokens / windowTokens));
      const tokens = new Int32Array(count * windowTokens);
      for (let i = 0; i < count; i++) {
        const row = Math.floor((i * valid.rows) / count);
        tokens.set((await valid.readRows(row, row + 1)).tokens.subarray(0, windowTokens), i * windowTokens);
      }
      found.push({name, tokens});
    }
    return found;
  } finally {
    await closeShards(sources);
  }
}

/** Name of the folder of the model that a process measures, before its id. */
const MODEL = 'model-';

/** Removes models of processes that were killed. */
async function sweep(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    const [, pid] = /^\.?model-(\d+)/.exec(name) ?? [];
    if (pid !== undefined && !isAlive(Number(pid))) await rm(join(folder, name), {recursive: true, force: true});
  }
}
