import {readFile, realpath, stat} from 'node:fs/promises';
import {join} from 'node:path';
import type {LoadedConfig} from '../config/load.js';
import {configHash, isResolved, resolvedYaml} from '../config/resolved.js';
import {type Config, missingArm} from '../config/schema.js';
import type {Conversion} from '../downcycle/convert.js';
import type {DiveConversion} from '../downcycle/dive.js';
import {type Profile, readProfile} from '../downcycle/profile-file.js';
import type {ProfileProgress} from '../downcycle/profile-model.js';
import type {ExpertsConversion} from '../downcycle/split-experts.js';
import {estimateRun, type RunEstimate} from '../train/estimate.js';
import {train} from '../train/run.js';
import {checkFolder} from '../train/run-folder.js';
import type {TrainResult, TrainRun} from '../train/session.js';
import {refuseExisting} from '../util/atomic.js';
import {EnvironmentError, UsageError} from '../util/errors.js';
import {refuseInUse} from '../util/lock.js';
import {type Arm, armsOf, makeStart, parentsOf, planArm, readsProfile, runOf, type StartingModel} from './arm.js';
import {begin} from './begin.js';
import {checkArms} from './check.js';
import {cutsExperts} from './inner-arm.js';
import {layoutOf} from './layout.js';
import {type OnEvent, profileOf} from './profile.js';
import {resolveModels} from './resolve-models.js';

/** Which model of a config is to be made, and where. */
export interface ConvertArmOptions {
  readonly loaded: LoadedConfig;
  /** Name of the arm; the config's `arm`, or its only one, if absent. */
  readonly arm?: string | undefined;
  /** Folder to write; must not exist. */
  readonly out: string;
  /** File made by `profile`; the model is profiled if it is needed and absent. */
  readonly profile?: string | undefined;
}

/** How one run is trained. */
export interface TrainConfigOptions {
  readonly loaded: LoadedConfig;
  /** Name of the arm; the config's `arm` if absent. Without either the config's model is trained as it is. */
  readonly arm?: string | undefined;
  /** Run folder; checkpoints/<name>/<arm> if absent, or checkpoints/<name>/model without an arm. */
  readonly out?: string | undefined;
  readonly mode: TrainRun['mode'];
  /** As in {@link TrainRun}. */
  readonly allowsChange?: boolean | undefined;
  /** The option that says where the run lies, for hints; default --out. */
  readonly named?: RunOption;
}

/** An option of a command that says where a run lies. */
type RunOption = '--out' | '--name';

/**
 * Makes the model that an arm of a config starts from, and proves that it equals its dense parent.
 *
 * @throws UsageError if no arm, or one that is not there, is named; EnvironmentError if `out` exists; what conversion throws.
 */
export async function convertArm(
  {loaded: given, arm: asked, out, profile}: ConvertArmOptions,
  onEvent: OnEvent = () => undefined,
): Promise<StartingModel> {
  await refuseExisting(out);
  const name = requireArm(given, asked ?? given.config.arm ?? onlyArm(given));
  const loaded = await resolveModels(given, {arms: [name]}, onEvent);
  const arm = armOf(loaded, name);
  await checkArms(loaded, [arm.name]);
  await refuseUnused(loaded, arm, profile);
  await begin(loaded.config, parentsOf(loaded.config, [arm.name]), onEvent);
  return makeArm(loaded, {...arm, start: out}, profile, onEvent);
}

/**
 * Says what {@link convertArm} would make of an arm that cuts a model.
 *
 * @throws UsageError if no arm is named, or one that cuts none; what planning throws.
 */
export async function planConfig(
  {loaded: given, arm: asked, profile}: Omit<ConvertArmOptions, 'out'>,
  onEvent: OnEvent = () => undefined,
): Promise<Conversion | DiveConversion | ExpertsConversion> {
  const name = requireArm(given, asked ?? given.config.arm ?? onlyArm(given));
  const loaded = await resolveModels(given, {arms: [name]}, onEvent);
  const arm = armOf(loaded, name);
  await checkArms(loaded, [arm.name]);
  await refuseUnused(loaded, arm, profile);
  await begin(loaded.config, [], onEvent); // what its model's files hold is said with the plan
  const where = loaded.at(['arms', arm.name]);
  return planArm(arm, loaded.config, profiler(loaded, profile, onEvent), where, progress(onEvent));
}

/**
 * Trains one arm of a config, whose starting model is made unless it is there, or the config's model as it is.
 *
 * @throws UsageError if the arm is not there; what conversion and training throw.
 */
export async function trainConfig(
  options: TrainConfigOptions,
  onEvent: OnEvent = () => undefined,
): Promise<TrainResult> {
  const {loaded: given, mode, allowsChange = false, named = '--out'} = options;
  const name = options.arm ?? given.config.arm;
  const loaded = await resolveTrained(given, name, onEvent);
  const arm = name === undefined ? asItIs(loaded.config) : armOf(loaded, name);
  const run = runOf(loaded.config, arm, options.out ?? arm.out, {mode, allowsChange});
  if (mode === 'new') await refuseRun(run.out, named);
  if (mode === 'resume') await requireRun(run.out, named);
  await refuseOwnFolder(loaded.file, run.out);
  await checkFolder(run);
  const arms = name === undefined ? [] : [name];
  await checkArms(loaded, arms);
  tellOfNoArm(loaded, name, onEvent);
  await begin(loaded.config, parentsOf(loaded.config, arms), onEvent);
  if (name !== undefined) onEvent({kind: 'arm', ...(await makeArm(loaded, arm, undefined, onEvent))});
  return train(run, (event) => onEvent({kind: 'train', arm: arm.name, event}));
}

/** What {@link estimateConfig} found, and the run that it is about. */
export interface ConfigEstimate {
  readonly run: TrainRun;
  readonly estimate: RunEstimate;
}

/**
 * Works out what {@link trainConfig} would need of memory and time; only an arm's starting model is made, as for training.
 *
 * @throws UsageError if the arm is not there; what conversion and {@link estimateRun} throw.
 */
export async function estimateConfig(
  {loaded: given, arm: asked}: Pick<TrainConfigOptions, 'loaded' | 'arm'>,
  onEvent: OnEvent = () => undefined,
): Promise<ConfigEstimate> {
  const name = asked ?? given.config.arm;
  const loaded = await resolveTrained(given, name, onEvent);
  const arm = name === undefined ? asItIs(loaded.config) : armOf(loaded, name);
  await checkArms(loaded, name === undefined ? [] : [name]);
  tellOfNoArm(loaded, name, onEvent);
  if (name !== undefined) {
    await begin(loaded.config, parentsOf(loaded.config, [name]), onEvent);
    onEvent({kind: 'arm', ...(await makeArm(loaded, arm, undefined, onEvent))});
  }
  const run = runOf(loaded.config, arm, arm.out, {mode: 'new'});
  return {run, estimate: await estimateRun(run)};
}

/** With folders for the models that training an arm, or the config's model as it is, needs. */
function resolveTrained(given: LoadedConfig, name: string | undefined, onEvent: OnEvent): Promise<LoadedConfig> {
  const arms = name === undefined ? [] : [requireArm(given, name)];
  return resolveModels(given, {arms, teacher: true}, onEvent);
}

/** A config with arms is mostly meant for them. */
function tellOfNoArm({config}: LoadedConfig, name: string | undefined, onEvent: OnEvent): void {
  const arms = Object.keys(config.arms);
  if (name !== undefined || arms.length === 0) return;
  onEvent({kind: 'stage', text: `no arm named: ${config.model} as it is; arms: ${arms.join(', ')}`});
}

/** A profile that nothing reads is a mistake: of a method that needs none, or of a mixture, whose experts are watched. */
async function refuseUnused({config}: LoadedConfig, {name}: Arm, profile: string | undefined): Promise<void> {
  const options = config.arms[name];
  if (profile === undefined || !options) return;
  const hint = 'Leave --profile out.';
  if (await cutsExperts(options, config)) {
    const message = `${config.model} is a mixture: its experts are watched as they are cut, not profiled before.`;
    throw new UsageError(message, {hint});
  }
  if (!('like' in options) && !readsProfile(options)) {
    throw new UsageError(`${options.method} reads no profile, and --profile names ${profile}.`, {hint});
  }
}

/**
 * Looks before a run's model is made, which may take long; `train` looks again.
 *
 * @throws EnvironmentError if something is where it is to lie, or a process trains there.
 */
export async function refuseRun(out: string, named: RunOption): Promise<void> {
  await refuseInUse(out);
  await refuseExisting(out).catch((cause: unknown) => {
    if (!(cause instanceof EnvironmentError)) throw cause;
    const hint = `Say --resume to go on with it, --overwrite to start again, or choose another ${named}.`;
    throw new EnvironmentError(cause.message, {hint, cause});
  });
}

/** A run folder has a config.yaml of its own: one that a person wrote must not be replaced by it. */
async function refuseOwnFolder(file: string, out: string): Promise<void> {
  const [given, own] = await Promise.all(
    [file, join(out, 'config.yaml')].map((path) => realpath(path).catch(() => null)),
  );
  if (!given || given !== own || isResolved(await readFile(given, 'utf8'))) return;
  throw new EnvironmentError(`${out} holds the config that was given, and is no run folder.`, {
    hint: 'Choose another --out.',
  });
}

/** Going on with a run that is not there would begin another in silence. */
async function requireRun(out: string, named: RunOption): Promise<void> {
  if (await stat(out).catch(() => null)) return;
  throw new UsageError(`${out} is not there: nothing can be resumed.`, {
    hint: `Correct ${named}, or leave --resume out to start a run.`,
  });
}

/** Makes an arm's starting model; before it, if it takes the architecture of another arm, that one's. */
async function makeArm(
  loaded: LoadedConfig,
  arm: Arm,
  profile: string | undefined,
  onEvent: OnEvent,
): Promise<StartingModel> {
  const {config, at} = loaded;
  const options = config.arms[arm.name];
  const profiled = profiler(loaded, profile, onEvent);
  const arms = armsOf(config);
  if (options && 'like' in options) {
    const parent = armOf(loaded, options.like);
    await makeStart(parent, config, arms, profiled, at(['arms', parent.name]), progress(onEvent));
  }
  return makeStart(arm, config, arms, profiled, at(['arms', arm.name]), progress(onEvent));
}

/** Reads the profile at a path, or makes that of the config. */
function profiler(loaded: LoadedConfig, path: string | undefined, onEvent: OnEvent): () => Promise<Profile> {
  return () => (path === undefined ? profileOf(loaded, progress(onEvent)) : readProfile(path));
}

function progress(onEvent: OnEvent): ProfileProgress {
  return (what, done, total) => onEvent({kind: 'profile', what, done, total});
}

function armOf(loaded: LoadedConfig, name: string): Arm {
  const arm = armsOf(loaded.config).find((one) => one.name === name);
  if (arm) return arm;
  throw noArm(loaded, name);
}

/** Looks before models are downloaded, which may take long. */
function requireArm(loaded: LoadedConfig, name: string): string {
  if (Object.hasOwn(loaded.config.arms, name)) return name;
  throw noArm(loaded, name);
}

function noArm({config}: LoadedConfig, name: string): UsageError {
  return new UsageError(`${missingArm(name, Object.keys(config.arms))}.`.replace(/^t/, 'T'));
}

function onlyArm({config, file}: LoadedConfig): string {
  const names = Object.keys(config.arms);
  const [only] = names;
  if (only !== undefined && names.length === 1) return only;
  const found = names.length === 0 ? 'no arms' : `several arms: ${names.join(', ')}`;
  throw new UsageError(`${file} has ${found}.`, {
    hint:
      names.length === 0
        ? 'Name one under `arms`, or make one with flags: --method, --experts and so on.'
        : `Choose one, e.g. --arm ${only}`,
  });
}

/** The config's model as an arm without a name of its own. */
export function asItIs(config: Config): Arm {
  const {name, model} = config;
  const bare = {...config, arms: {}, conversions: {}, report: {}} as Config; // what training does not hang on
  const own = {yaml: resolvedYaml(bare), hash: configHash(bare)};
  return {name, start: model, out: join(layoutOf(config).root, 'model'), config: own};
}
