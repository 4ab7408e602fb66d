// A short finetune that wins back what a conversion lost, in one call.
import {stat} from 'node:fs/promises';
import {basename, join, resolve} from 'node:path';
import {stringify} from 'yaml';
import {type LoadedConfig, parseConfig} from '../config/load.js';
import type {Override} from '../config/override.js';
import type {Config, ConfigInput} from '../config/schema.js';
import {readProvenance} from '../downcycle/provenance.js';
import {readRunLog} from '../format/run-log.js';
import {readArchitecture} from '../model/read-architecture.js';
import {checkpointModel, latestCheckpoint} from '../train/checkpoint.js';
import {logPath, type TrainResult, type TrainRun} from '../train/session.js';
import {UsageError} from '../util/errors.js';
import {layoutOf} from './layout.js';
import {modelLoss} from './model-loss.js';
import {trainConfig} from './one-arm.js';
import type {OnEvent} from './profile.js';
import {type Recipe, type RecoverStage, stagesOf} from './recover-stages.js';

/** What is recovered, and on what. */
export interface RecoverOptions {
  /** Folder of the converted model. */
  readonly model: string;
  /** Files or folders of text, as `data.sources[].path`. */
  readonly text: readonly string[];
  /** Rows of text that are trained on. */
  readonly samples: number;
  /** Default cmoe. */
  readonly recipe?: Recipe | undefined;
  /** Tokens of a row. */
  readonly tokens: number;
  /** Name of the experiment: the run lies in checkpoints/<name>/model. */
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
  /** Before and after the finetune; null for what was not measured. */
  readonly converted: number | null;
  readonly recovered: number | null;
}

/** Rows of an optimizer step. */
const SEQUENCES = 16;

/**
 * Wins back what a conversion lost with a short finetune: 2,048 samples, by the settings of {@link stagesOf}.
 *
 * @throws UsageError if there are too few samples for a step, or nothing that a recipe trains; what training throws.
 */
export async function recover(options: RecoverOptions, onEvent: OnEvent = () => undefined): Promise<Recovery> {
  const {recipe = 'cmoe', samples, allowsChange} = options;
  const given = {...options, name: options.name ?? nameOf(options.model)};
  const stages = stagesOf(recipe, await readArchitecture(options.model), samples);
  const results: TrainResult[] = [];
  let {model} = options;
  let config: Config | null = null;
  for (const stage of stages) {
    const loaded = recoverConfig({...given, model}, stage);
    config ??= loaded.config;
    const out = join(layoutOf(loaded.config).root, stage.folder);
    const isThere = (await stat(out).catch(() => null)) !== null;
    const mode = options.mode === 'resume' && results.length > 0 && !isThere ? 'new' : options.mode;
    const result = await trainConfig({loaded, out, mode, allowsChange}, onEvent);
    results.push(result);
    if (result.reason === 'interrupted') return recoveryOf(results, null);
    const checkpoint = await latestCheckpoint(out);
    if (checkpoint) model = checkpointModel(checkpoint.path);
  }
  const dense = config && (await parentLoss(options.model, config, onEvent));
  return recoveryOf(results, perplexity(dense));
}

function nameOf(model: string): string {
  return `recover-${basename(resolve(model))}`;
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
  const recovered = result.reason === 'interrupted' ? null : perplexity(losses.at(-1) ?? null);
  return {result, dense, converted: perplexity(losses[0] ?? null), recovered};
}

/** The config of a stage; what is not said here has the defaults of any run. */
export function recoverConfig(options: RecoverOptions, stage: RecoverStage): LoadedConfig {
  const loaded = configOf(options, stage, SEQUENCES);
  const {sequences, accumulate} = loaded.config.train.batch; // --set may have changed them
  const rows = sequences * accumulate;
  return rows === SEQUENCES ? loaded : configOf(options, stage, rows);
}

/** The same with steps of so many rows. */
function configOf(options: RecoverOptions, {samples, train}: RecoverStage, rows: number): LoadedConfig {
  const {model, text, tokens, set} = options;
  const steps = Math.floor(samples / rows);
  if (steps < 1) {
    throw new UsageError(`${samples} samples make no step of ${rows}.`, {
      hint: `Say --samples ${Math.ceil((rows * options.samples) / samples)} or more.`,
    });
  }
  const config: ConfigInput = {
    name: options.name ?? nameOf(model),
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
  const word = basename(path)
    .replace(/\.[^.]*$/, '')
    .replaceAll(/[^\w.-]+/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '');
  return `${word || 'text'}-${place + 1}`;
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
  return (await stat(join(path, 'config.json')).catch(() => null)) ? path : null;
}

function perplexity(loss: number | null): number | null {
  return loss === null ? null : Math.exp(loss);
}
