import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import type {Config} from '../config/schema.js';
import {hasExperts} from '../downcycle/inner/plan.js';
import type {DownloadProgress} from '../hub/download.js';
import {readArchitecture} from '../model/read-architecture.js';
import {type WrittenReport, writeReport} from '../report/report.js';
import type {TrainEvent} from '../train/event.js';
import {train} from '../train/run.js';
import {checkFolder} from '../train/run-folder.js';
import type {TrainResult} from '../train/session.js';
import {makeFolder} from '../util/atomic.js';
import {ConfigError} from '../util/errors.js';
import {withLock} from '../util/lock.js';
import {type Arm, armsOf, makeStart, parentsOf, runOf, type StartingModel} from './arm.js';
import {begin} from './begin.js';
import {checkArms} from './check.js';
import {layoutOf} from './layout.js';
import {modelLoss} from './model-loss.js';
import {profileOf} from './profile.js';
import {resolveModels} from './resolve-models.js';

/** What happens during a comparison, for whoever shows it. */
export type CompareEvent =
  | {readonly kind: 'stage' | 'warning'; readonly text: string}
  | {readonly kind: 'profile'; readonly what: string; readonly done: number; readonly total: number}
  | {readonly kind: 'download'; readonly progress: DownloadProgress}
  | ({readonly kind: 'arm'} & StartingModel)
  | {readonly kind: 'train'; readonly arm: string; readonly event: TrainEvent};

/** How a comparison is run. */
export interface CompareOptions {
  readonly loaded: LoadedConfig;
  /** Start every arm again; otherwise finished arms are kept and interrupted ones go on. */
  readonly overwrite: boolean;
}

/** What a comparison gave. */
export interface Comparison {
  /** The report, or null if training was interrupted before every arm was done. */
  readonly report: WrittenReport | null;
  readonly runs: readonly TrainResult[];
}

/**
 * From a dense model to compared loss curves: profiles it, makes every arm's starting model, trains all arms on the same
 * token stream and draws their curves together.
 *
 * @throws ConfigError if there are no arms; EnvironmentError if another process compares in this folder; what a part
 * throws otherwise. Finished parts are kept and found again.
 */
export async function compare(
  {loaded: given, overwrite}: CompareOptions,
  onEvent: (event: CompareEvent) => void = () => undefined,
): Promise<Comparison> {
  const names = Object.keys(given.config.arms);
  if (names.length === 0) {
    throw new ConfigError(`${given.file}: there is nothing to compare.`, {
      hint: 'Name at least one arm under `arms`.',
    });
  }
  const loaded = await resolveModels(given, {arms: names, teacher: true}, onEvent);
  const {config} = loaded;
  const arms = armsOf(config);
  await checkArms(loaded, names);
  const onStale = (text: string): void => onEvent({kind: 'stage', text});
  return withLock(layoutOf(config).root, onStale, () => compareArms(loaded, arms, overwrite, onEvent));
}

async function compareArms(
  loaded: LoadedConfig,
  arms: readonly Arm[],
  overwrite: boolean,
  onEvent: (event: CompareEvent) => void,
): Promise<Comparison> {
  const {config} = loaded;
  const mode = overwrite ? 'overwrite' : 'resume';
  for (const arm of arms) await checkFolder(runOf(config, arm, arm.out, {mode}));
  const names = arms.map(({name}) => name);
  await begin(config, parentsOf(config, names), onEvent);
  const {root} = layoutOf(config);
  if (overwrite) for (const arm of arms) await rm(arm.start, {recursive: true, force: true});
  await makeFolder(join(root, 'start'));
  const onProgress = (what: string, done: number, total: number): void => onEvent({kind: 'profile', what, done, total});
  const profile = once(() => profileOf(loaded, onProgress));
  for (const arm of startOrder(arms, config)) {
    const start = await makeStart(arm, config, arms, profile, loaded.at(['arms', arm.name]), onProgress);
    onEvent({kind: 'arm', ...start});
  }
  const runs: TrainResult[] = [];
  for (const arm of arms) {
    const run = runOf(config, arm, arm.out, {mode});
    runs.push(await train(run, (event) => onEvent({kind: 'train', arm: arm.name, event})));
    if (runs.at(-1)?.reason === 'interrupted') return {report: null, runs};
  }
  return {report: await report(config, arms, onEvent), runs};
}

/** Arms that take another's architecture come after it. */
function startOrder(arms: readonly Arm[], config: Config): Arm[] {
  const isDerived = ({name}: Arm): boolean => 'like' in (config.arms[name] ?? {});
  return [...arms.filter((arm) => !isDerived(arm)), ...arms.filter(isDerived)];
}

async function report(
  config: Config,
  arms: readonly Arm[],
  onEvent: (event: CompareEvent) => void,
): Promise<WrittenReport> {
  onEvent({kind: 'stage', text: 'measuring the parent and drawing the curves'});
  const {out = join(layoutOf(config).root, 'report'), smoothing, x} = config.report;
  const parent = await parentLoss(config);
  return writeReport({
    runs: arms.map((arm) => arm.out),
    out,
    smoothing,
    x,
    title: config.name,
    replace: true,
    ...(parent && {reference: parent}),
  });
}

/** Validation loss of the parent on the rows that arms are measured on, and what to call it; null if nothing is held out. */
async function parentLoss(config: Config): Promise<{label: string; loss: number} | null> {
  const loss = await modelLoss(config.model, config);
  const label = hasExperts(await readArchitecture(config.model)) ? 'parent' : 'dense parent';
  return loss === null ? null : {label, loss};
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make();
    return made;
  };
}
