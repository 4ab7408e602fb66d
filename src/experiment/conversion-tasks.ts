// What a comparison of conversions measures: every arm that cuts the dense model, at every sparsity and seed.
import type {LoadedConfig} from '../config/load.js';
import type {ArmOptions} from '../config/schema.js';
import {type LayerShape, roundHalfEven} from '../downcycle/allocation.js';
import {requireDivable} from '../downcycle/dive.js';
import {type DiveOptions, isDive} from '../downcycle/dive-options.js';
import type {SplitOptions} from '../downcycle/options.js';
import {planCounts} from '../downcycle/partition/plan-conversion.js';
import type {Profile} from '../downcycle/profile-file.js';
import {ROUTERS} from '../downcycle/split-fields.js';
import {isUpcycle} from '../downcycle/upcycle-options.js';
import {ConfigError} from '../util/errors.js';
import {formatPercent} from '../util/percent.js';

/** What is to be measured. */
export interface ConversionTask {
  readonly arm: string;
  readonly method: SplitOptions | DiveOptions;
  readonly sparsity: number;
  readonly seed: number;
}

/** Every arm at every sparsity and seed; methods that draw nothing by lot once. */
export function tasksOf({config, file, at}: LoadedConfig): ConversionTask[] {
  const {sparsities, seeds} = config.conversions;
  const arms = Object.entries(config.arms).flatMap(([arm, options]) => (cuts(options) ? [{arm, options}] : []));
  if (arms.length === 0) {
    throw new ConfigError(
      `${file}: no arm has a sparsity that can be chosen: copies of FFNs and arms from scratch are not compared.`,
      {
        hint: 'Name at least one under `arms` that cuts the dense model.',
      },
    );
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

/** Arms whose sparsity cannot be chosen: those that copy FFNs, or start from scratch. */
export function armsLeftOut({arms}: LoadedConfig['config']): string[] {
  return Object.keys(arms).filter((arm) => !cuts(arms[arm]));
}

function cuts(options: ArmOptions | undefined): options is ConversionTask['method'] {
  return options !== undefined && !('like' in options) && !isUpcycle(options);
}

/** A method at a sparsity, and the sparsity that whole chunks make of it. */
function atSparsity(
  options: ConversionTask['method'],
  sparsity: number,
  where: string,
): {method: ConversionTask['method']; made: number} {
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
export function isSeeded(options: ConversionTask['method']): boolean {
  return isDive(options) || drawsNeurons(options) || drawsRouters(options);
}

function drawsRouters(options: SplitOptions): boolean {
  return options.method !== 'all-shared' && ROUTERS[options.router].isDrawn;
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

/**
 * Refuses counts that no layer can have, before any arm is measured.
 *
 * @throws ConfigError as {@link planCounts} and {@link requireDivable} do.
 */
export function requireCounts(
  {at}: Pick<LoadedConfig, 'at'>,
  tasks: readonly ConversionTask[],
  {layers: profiles, metadata}: Profile,
): void {
  const {options, model, tasks: names} = metadata;
  const sizes = {tasks: names.length, sampleTokens: options.tokensPerSample, numNeurons: model.ffnWidth};
  for (const {arm, method, sparsity} of tasks) {
    const where = `${at(['arms', arm])}: at a sparsity of ${formatPercent(sparsity)}`;
    if (isDive(method)) requireDivable(method, sizes, where);
    else planCounts({method, profiles, cv: options.cv, where});
  }
}
