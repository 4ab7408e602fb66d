// A short finetune that wins back what a conversion lost, in one call.
import {stat} from 'node:fs/promises';
import {basename, join, resolve} from 'node:path';
import {stringify} from 'yaml';
import {type LoadedConfig, parseConfig} from '../config/load.js';
import type {Override} from '../config/override.js';
import type {Config, ConfigInput} from '../config/schema.js';
import {readProvenance} from '../downcycle/provenance.js';
import {readRunLog} from '../format/run-log.js';
import type {Architecture} from '../model/architecture.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';
import {readArchitecture} from '../model/read-architecture.js';
import {type Part, partOf} from '../train/part.js';
import {logPath, type TrainResult, type TrainRun} from '../train/session.js';
import {UsageError} from '../util/errors.js';
import {modelLoss} from './model-loss.js';
import {trainConfig} from './one-arm.js';
import type {OnEvent} from './profile.js';

/** What is recovered, and on what. */
export interface RecoverOptions {
  /** Folder of the converted model. */
  readonly model: string;
  /** Files or folders of text, as `data.sources[].path`. */
  readonly text: readonly string[];
  /** Rows of text that are trained on. */
  readonly samples: number;
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
/** Learning rate of what scores count in the weights of experts. */
const SCALE_RATE = 1e-3;
/** Parts whose matrices get low-rank terms. */
const ADAPTED: readonly Part[] = ['attention', 'ffn', 'shared', 'experts'];

/**
 * Finetunes a converted model as CMoE's recovery does (arXiv 2502.04416, section 4): 2,048 samples, LoRA of rank 8 and
 * alpha 32 on attention and experts, learning rate 5.65e-5, biases in place of a balance loss; what scores count in the weights, if
 * the model has that (weights one-plus-scaled), at 1e-3.
 *
 * @throws UsageError if there are too few samples for a step; what training throws.
 */
export async function recover(options: RecoverOptions, onEvent: OnEvent = () => undefined): Promise<Recovery> {
  const loaded = recoverConfig(options, await readArchitecture(options.model));
  const result = await trainConfig({loaded, mode: options.mode, allowsChange: options.allowsChange}, onEvent);
  const evals = (await readRunLog(logPath(result.out))).flatMap((record) =>
    record.kind === 'eval' && record.split === 'valid' ? [record] : [],
  );
  return {
    result,
    dense: result.reason === 'interrupted' ? null : perplexity(await parentLoss(options.model, loaded.config, onEvent)),
    converted: perplexity(evals[0]?.loss ?? null),
    recovered: result.reason === 'completed' ? perplexity(evals.at(-1)?.loss ?? null) : null,
  };
}

/** The config of a recovery; what is not said here has the defaults of any run. */
export function recoverConfig(options: RecoverOptions, architecture: Architecture): LoadedConfig {
  const {model, text, samples, tokens, set} = options;
  const steps = Math.floor(samples / SEQUENCES);
  if (steps < 1) {
    throw new UsageError(`${samples} samples make no step of ${SEQUENCES}.`, {
      hint: `Say --samples ${SEQUENCES} or more.`,
    });
  }
  const parts = new Set(leavesOf(parameterSpecs(architecture)).map(partOf));
  const scales = (['scales'] as const).filter((part) => parts.has(part));
  const config: ConfigInput = {
    name: options.name ?? `recover-${basename(resolve(model))}`,
    model,
    data: {sequenceLength: tokens, sources: text.map((path, i) => ({name: sourceName(path, i), path}))},
    train: {
      batch: {sequences: SEQUENCES},
      steps,
      optimizer: {lr: 5.65e-5, weightDecay: 0, ...(scales.length > 0 && {rates: {scales: SCALE_RATE}})},
      schedule: {kind: 'cosine', warmup: Math.floor(steps * 0.03)},
      finetune: {kind: 'lora', rank: 8, alpha: 32, targets: ADAPTED.filter((part) => parts.has(part)), train: scales},
      ...(parts.has('routers') && {balance: {kind: 'bias', rate: 1e-3}}),
      validation: {every: Math.max(1, Math.ceil(steps / 4))},
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
