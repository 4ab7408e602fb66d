// A short finetune that wins back what a conversion lost, in one call.
import {stat} from 'node:fs/promises';
import {basename, join, resolve} from 'node:path';
import {stringify} from 'yaml';
import {type LoadedConfig, parseConfig} from '../config/load.js';
import type {Override} from '../config/override.js';
import type {Config, ConfigInput} from '../config/schema.js';
import {readProvenance} from '../downcycle/provenance.js';
import {isModel} from '../format/model-folder.js';
import {readRunLog} from '../format/run-log.js';
import {readArchitecture} from '../model/read-architecture.js';
import {checkpointModel, latestCheckpoint} from '../train/checkpoint.js';
import {checkFolder} from '../train/run-folder.js';
import {logPath, type TrainResult, type TrainRun} from '../train/session.js';
import {UsageError} from '../util/errors.js';
import {runOf} from './arm.js';
import {layoutOf} from './layout.js';
import {modelLoss} from './model-loss.js';
import {asItIs, refuseRun, trainConfig} from './one-arm.js';
import type {OnEvent} from './profile.js';
import {type Recipe, type RecoverStage, stagesOf} from './recover-stages.js';
import {folderOf} from './resolve-models.js';

/** What is recovered, and on what. */
export interface RecoverOptions {
  /** The converted model: a folder, or a name on the hub. */
  readonly model: string;
  /** Files or folders of text, as `data.sources[].path`. */
  readonly text: readonly string[];
  /** Rows of text that are trained on. */
  readonly samples: number;
  /** Default cmoe. */
  readonly recipe?: Recipe | undefined;
  /** Tokens of a row. */
  readonly tokens: number;
  /** Name of the experiment, whose runs lie in checkpoints/<name>; recover-<model> if absent, of dive recover-<model>-dive. */
  readonly name?: string | undefined;
  /** Overrides of the config that this makes, as typed after `--set`. */
  readonly set?: readonly string[] | undefined;
  readonly mode: TrainRun['mode'];
  /** As in {@link TrainRun}. */
  readonly allowsChange?: boolean | undefined;
}

/** Perplexity on held-out rows of the text. */
export interface Recovery {
  readonly result: TrainResult;
  /** Of the dense parent; null if it is not where the model's record says. */
  readonly dense: number | null;
  /** Of the model that was given; null if nothing was held out to measure on. */
  readonly before: number | null;
  /** Of the finetuned model; null if nothing was held out, or the finetune was interrupted. */
  readonly after: number | null;
}

/** Rows of an optimizer step. */
const SEQUENCES = 16;

/**
 * Wins back what a conversion lost with a short finetune: 2,048 samples, by the settings of {@link stagesOf}.
 *
 * @throws UsageError if there are too few samples for a step, or nothing that a recipe trains; what training throws.
 */
export async function recover(given: RecoverOptions, onEvent: OnEvent = () => undefined): Promise<Recovery> {
  const options = {...given, model: await folderOf(given.model, onEvent), name: given.name ?? nameOf(given)};
  const {recipe = 'cmoe', samples, allowsChange} = options;
  const stages = stagesOf(recipe, await readArchitecture(options.model), samples);
  await checkStages(options, stages);
  const results: TrainResult[] = [];
  let {model} = options;
  let config: Config | null = null;
  for (const stage of stages) {
    const loaded = recoverConfig(options, stage, model);
    config ??= loaded.config;
    const out = outOf(loaded, stage);
    const isThere = (await stat(out).catch(() => null)) !== null;
    const mode = options.mode === 'resume' && results.length > 0 && !isThere ? 'new' : options.mode;
    const result = await trainConfig({loaded, out, mode, allowsChange, named: '--name'}, onEvent);
    results.push(result);
    if (result.reason === 'interrupted') return recoveryOf(results, null);
    const checkpoint = await latestCheckpoint(out);
    if (checkpoint) model = checkpointModel(checkpoint.path);
  }
  const dense = config && (await parentLoss(options.model, config, onEvent));
  return recoveryOf(results, perplexity(dense));
}

/** Looks at the folders of all stages before the first is trained, which may take long. */
async function checkStages(options: RecoverOptions, stages: readonly RecoverStage[]): Promise<void> {
  for (const stage of stages) {
    const loaded = recoverConfig(options, stage);
    const out = outOf(loaded, stage);
    if (options.mode === 'new') await refuseRun(out, '--name');
    if (options.mode === 'overwrite')
      await checkFolder(runOf(loaded.config, asItIs(loaded.config), out, {mode: options.mode}));
  }
}

function outOf({config}: LoadedConfig, {folder}: RecoverStage): string {
  return join(layoutOf(config).root, folder);
}

/** Where no name is given: each recipe has runs of its own. */
function nameOf({model, recipe = 'cmoe'}: RecoverOptions): string {
  const word = fileWord(basename(resolve(model))).slice(0, 80) || 'model'; // a name has at most 100 letters
  return `recover-${word}${recipe === 'cmoe' ? '' : `-${recipe}`}`;
}

/** What the first and last validation of all stages say. */
async function recoveryOf(results: readonly TrainResult[], dense: number | null): Promise<Recovery> {
  const losses: (number | null)[] = [];
  for (const {out} of results) {
    for (const record of await readRunLog(logPath(out))) {
      if (record.kind === 'eval' && record.split === 'valid') losses.push(record.loss);
    }
  }
  const result = results.at(-1);
  if (!result) throw new Error('a recovery has at least one stage');
  const after = result.reason === 'interrupted' ? null : perplexity(losses.at(-1) ?? null);
  return {result, dense, before: perplexity(losses[0] ?? null), after};
}

/** The config of a stage, which starts from `model`; what is not said here has the defaults of any run. */
export function recoverConfig(options: RecoverOptions, stage: RecoverStage, model = options.model): LoadedConfig {
  const loaded = configOf(options, stage, model, SEQUENCES);
  const {sequences, accumulate} = loaded.config.train.batch; // --set may have changed them
  const rows = sequences * accumulate;
  if (stage.samples < rows) {
    throw new UsageError(`${stage.samples} samples make no step of ${rows}.`, {
      hint: `Say --samples ${Math.ceil((rows * options.samples) / stage.samples)} or more.`,
    });
  }
  return rows === SEQUENCES ? loaded : configOf(options, stage, model, rows);
}

/** The same with steps of so many rows. */
function configOf(options: RecoverOptions, {samples, train}: RecoverStage, model: string, rows: number): LoadedConfig {
  const {text, tokens, set} = options;
  const steps = Math.max(1, Math.floor(samples / rows));
  const config: ConfigInput = {
    name: options.name ?? nameOf(options),
    model,
    data: {sequenceLength: tokens, sources: text.map((path, i) => ({name: sourceName(path, i), path}))},
    train: {
      batch: {sequences: SEQUENCES},
      steps,
      schedule: {kind: 'cosine', warmup: Math.floor(steps * 0.03)},
      validation: {every: Math.max(1, Math.ceil(steps / 4))},
      ...train,
    },
  };
  return parseConfig(stringify(config), 'recover', {set, flags: flagsOf(options, steps)});
}

/** Which words of the command line gave which keys. */
function flagsOf({model, text, samples, tokens, name}: RecoverOptions, steps: number): Override[] {
  return [
    {typed: `recover ${model}`, path: ['model'], value: model},
    ...text.map((path, i) => ({typed: `--text ${path}`, path: ['data', 'sources', i, 'path'], value: path})),
    {typed: `--tokens ${tokens}`, path: ['data', 'sequenceLength'], value: tokens},
    {typed: `--samples ${samples}`, path: ['train', 'steps'], value: steps},
    ...(name === undefined ? [] : [{typed: `--name ${name}`, path: ['name'], value: name}]),
  ];
}

/** A name that may stand in a file's: the text's own, parted from others of that name by its place. */
function sourceName(path: string, place: number): string {
  const word = fileWord(basename(path).replace(/\.[^.]*$/, ''));
  return `${word || 'text'}-${place + 1}`;
}

/** Without what may not stand in the name of a config. */
function fileWord(text: string): string {
  return text.replaceAll(/[^\w.-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '');
}

/** Loss of the dense parent; null where it is not there. What keeps it from being measured is told, and costs no recovery. */
async function parentLoss(model: string, config: Config, onEvent: OnEvent): Promise<number | null> {
  const parent = await parentOf(model);
  if (parent === null) return null;
  onEvent({kind: 'stage', text: `measuring ${parent}`});
  try {
    return await modelLoss(parent, config);
  } catch (error) {
    onEvent({
      kind: 'stage',
      text: `${parent} was not measured: ${error instanceof Error ? error.message : String(error)}`,
    });
    return null;
  }
}

/** The dense model that a mixture was made of, if it is still there. */
async function parentOf(model: string): Promise<string | null> {
  const origin = await readProvenance(model).catch(() => null);
  if (!origin || !('source' in origin)) return null;
  const {path} = origin.source;
  return isModel(path) ? path : null;
}

function perplexity(loss: number | null): number | null {
  return loss === null ? null : Math.exp(loss);
}
