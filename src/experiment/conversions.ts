// Conversions compared as they are, without training: the table of CMoE (arXiv 2502.04416), table 3.
import {createHash} from 'node:crypto';
import {appendFile, readdir, readFile, rm, truncate} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import type {Config} from '../config/schema.js';
import {closeShards, ensureShards} from '../data/shards.js';
import type {LayerShape} from '../downcycle/allocation.js';
import {roundHalfEven} from '../downcycle/allocation.js';
import {type DiveOptions, isDive} from '../downcycle/dive-options.js';
import {NUMBERS} from '../downcycle/numbers.js';
import type {SplitOptions} from '../downcycle/options.js';
import type {Profile} from '../downcycle/profile-file.js';
import {isUpcycle} from '../downcycle/upcycle-options.js';
import {startEngine} from '../engine/start.js';
import {measurePerplexity, type Perplexity, readWindows, type TextWindows} from '../eval/perplexity.js';
import {countParameters, type ParameterCount} from '../model/architecture.js';
import {type WrittenConversions, writeConversionReport} from '../report/conversion-report.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {makeFolder} from '../util/atomic.js';
import {ConfigError, systemCode} from '../util/errors.js';
import {withPeakMemory} from '../util/peak-memory.js';
import {packageVersion} from '../util/version.js';
import {architectureOf, convertDive, convertSplit, layoutOf} from './arm.js';
import {checkArms} from './check.js';
import {type OnEvent, profileOf} from './profile.js';

/** One measured conversion, or the dense model itself. */
interface ConversionRow {
  /** What the row depends on; a row that is there is not measured again. */
  readonly key: string;
  /** Name of the arm; `dense` for the model itself. */
  readonly arm: string;
  readonly method: string;
  /** Share of the FFN neurons that are idle for a token; 0 for the dense model. */
  readonly sparsity: number;
  /** Null where nothing is drawn by lot. */
  readonly seed: number | null;
  readonly perplexities: readonly Perplexity[];
  /** With oracle routing; absent where that is not asked for, or nothing is chosen. */
  readonly oracle?: readonly Perplexity[];
  readonly parameters: ParameterCount;
  /** Of the conversion, without profile and measurement; null for the dense model. */
  readonly seconds: number | null;
  readonly peakBytes: number | null;
}

/** What is to be measured. */
interface Task {
  readonly arm: string;
  readonly method: SplitOptions | DiveOptions;
  readonly sparsity: number;
  readonly seed: number;
}

/**
 * Converts every arm that splits the dense model at every sparsity and seed, measures its perplexity on held-out texts and
 * writes the table.
 *
 * Each row is kept in `checkpoints/<name>/conversions/rows.jsonl` once it is there: the same command goes on where it stopped.
 * @throws ConfigError if there are no such arms, or counts that no sparsity can be had with; if there are no texts and
 * nothing is held out, or windows are longer than rows.
 */
export async function compareConversions(loaded: LoadedConfig, onEvent: OnEvent): Promise<WrittenConversions> {
  const {config} = loaded;
  const tasks = tasksOf(loaded);
  await checkArms(loaded, Object.keys(config.arms));
  for (const text of (await startEngine(config.engine)).notes) onEvent({kind: 'stage', text});
  const folder = join(layoutOf(config).root, 'conversions');
  await makeFolder(folder);
  await sweep(folder);
  const store = await openRows(join(folder, 'rows.jsonl'));
  const windows = config.conversions.texts.length > 0 ? await readTexts(config) : await heldOutTexts(loaded);
  const profile = await profileOf(loaded, (what, done, total) => onEvent({kind: 'profile', what, done, total}));
  const basis = basisOf(profile, windows, config.conversions);
  const rows = [await store.row(keyOf(basis, 'dense'), () => measureDense(config, windows))];
  for (const [i, task] of tasks.entries()) {
    const text = `${i + 1} of ${tasks.length}  ${task.arm} at ${percent(task.sparsity)}`;
    onEvent({kind: 'stage', text: isSeeded(task.method) ? `${text}, seed ${task.seed}` : text});
    rows.push(await store.row(keyOf(basis, task), () => measureTask(loaded, task, {profile, windows, folder})));
  }
  return writeConversionReport(folder, config.name, rows);
}

/** Every arm at every sparsity and seed; methods that draw nothing by lot once. */
function tasksOf({config, file, at}: LoadedConfig): Task[] {
  const {sparsities, seeds} = config.conversions;
  const arms = Object.entries(config.arms).flatMap(([arm, options]) =>
    'like' in options || isUpcycle(options) ? [] : [{arm, options}],
  );
  if (arms.length === 0) {
    throw new ConfigError(`${file}: no arm splits a dense model.`, {hint: 'Name at least one under `arms`.'});
  }
  const tasks = sparsities.flatMap((sparsity) =>
    arms.flatMap(({arm, options}) => {
      const {method, made} = atSparsity(options, sparsity, at(['arms', arm]));
      return (isSeeded(method) ? seeds : seeds.slice(0, 1)).map((seed) => ({arm, method, sparsity: made, seed}));
    }),
  );
  // Sparsities that are the same number of chunks to an arm are one row of it.
  return [...new Map(tasks.map((task) => [JSON.stringify(task), task])).values()];
}

/** A method at a sparsity, and the sparsity that whole chunks make of it. */
function atSparsity(options: Task['method'], sparsity: number, where: string): {method: Task['method']; made: number} {
  // Experts of dive may overlap: what counts is how much of an FFN's width runs for a token.
  if (isDive(options)) return {method: {...options, keep: (1 - sparsity) / options.topK}, made: sparsity};
  const method = {...options, ...countsAt(options, sparsity, where)};
  return {method, made: 1 - (method.shared + method.topK) / (method.experts + method.shared)};
}

/**
 * The counts of a sparsity: as many chunks as the arm has, of which so many are idle; of the others the share that the arm
 * shares, and at least one is routed.
 *
 * @throws ConfigError if fewer than one chunk would be idle, or fewer than one active.
 */
export function countsAt({experts, shared, topK}: LayerShape, sparsity: number, where: string): LayerShape {
  const chunks = experts + shared;
  const active = chunks - roundHalfEven(sparsity * chunks);
  if (active < 1 || active >= chunks) {
    throw new ConfigError(`${where}: of ${chunks} chunks ${active} are active at a sparsity of ${sparsity}.`, {
      hint: 'Give the arm more experts, or choose another sparsity.',
    });
  }
  const sharedNow = Math.min(roundHalfEven((active * shared) / (shared + topK)), active - 1);
  return {experts: chunks - sharedNow, shared: sharedNow, topK: active - sharedNow};
}

/** Whether a method draws anything by lot. */
function isSeeded(options: Task['method']): boolean {
  return isDive(options) || drawsNeurons(options) || drawsRouters(options);
}

function drawsRouters(options: SplitOptions): boolean {
  return options.method !== 'all-shared' && ['centroid', 'random', 'mlp'].includes(options.router);
}

function drawsNeurons(options: SplitOptions): boolean {
  switch (options.method) {
    case 'random':
    case 'expertweaver':
    case 'weave':
    case 'moefication':
      return true;
    case 'llama-moe':
      return options.split !== 'contiguous' && options.split !== 'importance';
    case 'cmoe':
    case 'contiguous':
    case 'all-shared':
      return false;
  }
}

interface Setting {
  readonly profile: Profile;
  readonly windows: readonly TextWindows[];
  readonly folder: string;
}

async function measureTask(
  {config, at}: LoadedConfig,
  {arm, method, sparsity, seed}: Task,
  {profile, windows, folder}: Setting,
): Promise<Omit<ConversionRow, 'key'>> {
  const out = join(folder, `${MODEL}${process.pid}`);
  try {
    const given = {out, profile, where: at(['arms', arm])};
    const {seconds, peakBytes} = await withPeakMemory<unknown>(() =>
      isDive(method) ? convertDive(method, {...config, seed}, given) : convertSplit(method, {...config, seed}, given),
    );
    const {windowTokens, oracle: isOracleAsked} = config.conversions;
    const architecture = await architectureOf(out);
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
    parameters: countParameters(await architectureOf(model)),
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
      const count = Math.min(valid.rows, Math.max(1, Math.floor(maxTokens / windowTokens)));
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

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}

interface RowStore {
  row(key: string, measure: () => Promise<Omit<ConversionRow, 'key'>>): Promise<ConversionRow>;
}

/** Rows by their keys, a line of JSON each; a torn last line is measured again. */
async function openRows(path: string): Promise<RowStore> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  });
  const known = new Map<string, ConversionRow>();
  for (const line of text.split('\n').slice(0, -1)) {
    const row = JSON.parse(line) as ConversionRow;
    known.set(row.key, row);
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole !== text) await truncate(path, Buffer.byteLength(whole));
  return {
    row: async (key, measure) => {
      const found = known.get(key);
      if (found) return found;
      const row = {key, ...(await measure())};
      await appendFile(path, `${JSON.stringify(row)}\n`);
      known.set(key, row);
      return row;
    },
  };
}

/** What every row depends on: the model's weights, the calibration text and how it was watched, what is measured, the code. */
function basisOf(
  {metadata: {model, tokenHash, options}}: Profile,
  windows: readonly TextWindows[],
  {windowTokens, oracle}: Config['conversions'],
): object {
  const texts = windows.map(({name, tokens}) => ({name, tokens: createHash('sha256').update(tokens).digest('hex')}));
  const extra = oracle ? {oracle} : {}; // rows without it are the same whether or not it could have been asked for
  return {
    fingerprint: model.fingerprint,
    tokenHash,
    options,
    texts,
    windowTokens,
    ...extra,
    numbers: NUMBERS,
    version: packageVersion(),
  };
}

function keyOf(basis: object, task: Task | 'dense'): string {
  return createHash('sha256').update(JSON.stringify({basis, task})).digest('hex').slice(0, 16);
}

function percent(share: number): string {
  return `${Number((100 * share).toPrecision(3))}%`;
}
