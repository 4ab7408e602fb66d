import {createHash} from 'node:crypto';
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import {configHash, resolvedYaml} from '../config/resolved.js';
import type {ArmOptions, Config} from '../config/schema.js';
import {closeShards, ensureShards} from '../data/shards.js';
import {type Conversion, type ConvertOptions, convert, needsCalibration} from '../downcycle/convert.js';
import {differenceOf as methodDifference} from '../downcycle/difference.js';
import type {DiveConversion} from '../downcycle/dive.js';
import {isDive} from '../downcycle/dive-options.js';
import {unreachedTexts} from '../downcycle/inner/plan.js';
import {openSource} from '../downcycle/model-source.js';
import {NUMBERS} from '../downcycle/numbers.js';
import {isScaled, type SplitOptions} from '../downcycle/options.js';
import {profileNeeds} from '../downcycle/partition/plan-conversion.js';
import type {Profile} from '../downcycle/profile-file.js';
import type {ProfileProgress} from '../downcycle/profile-model.js';
import {proveConversion} from '../downcycle/proof.js';
import {type Proof, readProvenance, recordProof} from '../downcycle/provenance.js';
import type {ExpertsConversion} from '../downcycle/split-experts.js';
import {scratch, upcycle} from '../downcycle/upcycle.js';
import {isUpcycle} from '../downcycle/upcycle-options.js';
import {readModelConfig} from '../format/model-folder.js';
import {countParameters, type ParameterCount} from '../model/architecture.js';
import {readArchitecture} from '../model/read-architecture.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import type {TrainRun} from '../train/session.js';
import {makeAtomic} from '../util/atomic.js';
import {ConfigError, ModelError, UsageError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {convertExperts, cutsExperts} from './inner-arm.js';
import {layoutOf} from './layout.js';
import {revisionOf} from './resolve-models.js';
import {convertDive, convertSplit} from './split-arm.js';

/** One arm, ready to be trained. */
export interface Arm {
  readonly name: string;
  /** MoE folder it starts from. */
  readonly start: string;
  readonly out: string;
  readonly config: {readonly yaml: string; readonly hash: string};
}

/** What making a starting model told. */
export interface StartingModel {
  readonly arm: string;
  readonly parameters: ParameterCount;
  /** Equality with the dense parent; where none is claimed, how it started out instead, in words. */
  readonly proof: Proof | string;
  /** What else there is to know of how it was made. */
  readonly notes: readonly string[];
}

/** The arms of a config; each knows a config of its own, so that adding an arm leaves the others as they are. */
export function armsOf(config: Config): Arm[] {
  const {root} = layoutOf(config);
  return Object.entries(config.arms).map(([name, options]) => {
    const source = 'like' in options ? {[options.like]: config.arms[options.like]} : {};
    const own = {...config, arm: name, arms: {...source, [name]: options}, conversions: {}, report: {}} as Config;
    const hash = configHash(own);
    return {
      name,
      start: join(root, 'start', `${name}-${startKey(hash)}`),
      out: join(root, name),
      config: {yaml: resolvedYaml(own), hash},
    };
  });
}

/** Of a starting model: its config, and the code that makes it. */
function startKey(hash: string): string {
  return createHash('sha256').update(`${hash} ${NUMBERS}`).digest('hex').slice(0, 8);
}

/** Makes the model an arm starts from, unless it is there; proves it against its dense parent. */
export async function makeStart(
  arm: Arm,
  config: Config,
  arms: readonly Arm[],
  profile: () => Promise<Profile>,
  where: string,
  onProgress?: ProfileProgress,
): Promise<StartingModel> {
  const options = optionsOf(arm, config);
  if (await isStale(arm.start, options, config)) await rm(arm.start, {recursive: true});
  const dense = denseOf(options, config);
  const difference = differenceOf(options);
  const sequences = difference === null ? await proofText(dense, config) : []; // first: what it lacks would cost the work
  const proved = async (start: string): Promise<Proof | string> => difference ?? (await prove(start, dense, sequences));
  const proof = (await exists(arm.start))
    ? await proved(arm.start)
    : await makeAtomic(arm.start, async (start) => {
        await make({...arm, start}, options, config, arms, profile, where, onProgress);
        return proved(start); // before it has its name: what stands there is proved
      });
  const architecture = await readArchitecture(arm.start);
  const provenance = await readProvenance(arm.start);
  const notes = provenance.kind === 'inner-split' ? unreachedTexts(provenance.layers) : [];
  return {arm: arm.name, parameters: countParameters(architecture), proof, notes};
}

/** Whether a starting model is there, but was made of other weights than stand in its parent's folder now. */
async function isStale(start: string, options: ArmOptions, config: Config): Promise<boolean> {
  if (!(await exists(start))) return false;
  const provenance = await readProvenance(start);
  if (provenance.kind === 'scratch') return false;
  const parent = await openSource(denseOf(options, config));
  await parent.folder.close();
  return parent.fingerprint !== provenance.source.fingerprint;
}

/** Why an arm is not meant to start out equal to the dense model, in words; null if it is. */
function differenceOf(options: ArmOptions): string | null {
  if ('like' in options) return 'drawn at random';
  const difference = methodDifference(options);
  return difference === null ? null : `not equal to its parent by design: ${difference}`;
}

function optionsOf({name}: Arm, {arms}: Config): ArmOptions {
  const options = arms[name];
  if (!options) throw new ConfigError(`There is no arm ${name}.`);
  return options;
}

async function make(
  arm: Arm,
  options: ArmOptions,
  config: Config,
  arms: readonly Arm[],
  profile: () => Promise<Profile>,
  where: string,
  onProgress?: ProfileProgress,
): Promise<void> {
  const {seed, model} = config;
  if ('like' in options) {
    const parent = arms.find(({name}) => name === options.like);
    if (!parent) throw new ConfigError(`${where}: there is no arm ${options.like}.`);
    const architecture = await readArchitecture(parent.start);
    return scratch({
      architecture,
      out: arm.start,
      seed,
      config: (await readModelConfig(model)).config,
      tokenizerFrom: model,
    });
  }
  if (isUpcycle(options)) {
    const dense = denseOf(options, config);
    await upcycle({model: dense, out: arm.start, method: options, seed, where, ...(await revisionOf(dense))});
    return;
  }
  if (isDive(options)) {
    await convertDive(options, config, {out: arm.start, where, profile: await profile()}, onProgress);
    return;
  }
  const inner = await cutsExperts(options, config);
  if (inner) {
    const {shards} = layoutOf(config);
    await convertExperts(inner, config, {out: arm.start, where, shards}, onProgress);
    return;
  }
  const {profile: watched} = await howToSplit(options, config, profile, where);
  await convertSplit(options, config, {out: arm.start, where, ...(watched && {profile: watched})});
}

async function howToSplit(
  method: SplitOptions,
  {seed, model}: Config,
  profile: () => Promise<Profile>,
  where: string,
): Promise<Omit<ConvertOptions, 'out'>> {
  const watched = readsProfile(method) ? {profile: await profile()} : {};
  return {model, method, seed, where, ...(await revisionOf(model)), ...watched};
}

/** Whether making an arm from a dense model looks at a profile, or at its text, which the record names. */
export function readsProfile(method: Exclude<ArmOptions, {like: string}>): boolean {
  if (isDive(method)) return true;
  if (isUpcycle(method)) return false;
  return profileNeeds(method).profile || isScaled(method) || needsCalibration(method);
}

/**
 * What the conversion of an arm would make; nothing is written but what profiling keeps.
 *
 * @throws UsageError if the arm is not made of the neurons of a dense model.
 */
export async function planArm(
  arm: Arm,
  config: Config,
  profile: () => Promise<Profile>,
  where: string,
  onProgress?: ProfileProgress,
): Promise<Conversion | DiveConversion | ExpertsConversion> {
  const options = optionsOf(arm, config);
  if ('like' in options || isUpcycle(options)) {
    throw new UsageError(
      `${where}: arm ${arm.name} copies FFNs or draws them anew: it has no plan that could be shown.`,
      {
        hint: 'Say --out <folder> instead of --dry-run.',
      },
    );
  }
  if (isDive(options)) {
    const given = {out: arm.start, where, profile: await profile(), dryRun: true};
    return convertDive(options, config, given, onProgress);
  }
  const inner = await cutsExperts(options, config);
  if (inner) {
    const {shards} = layoutOf(config);
    return convertExperts(inner, config, {out: arm.start, where, shards, dryRun: true}, onProgress);
  }
  const how = await howToSplit(options, config, profile, where);
  return convert({...how, out: arm.start, dryRun: true});
}

/** The models that some arms are made of. */
export function parentsOf(config: Config, arms: readonly string[]): string[] {
  return arms.map((name) => denseOf(config.arms[name], config));
}

function denseOf(options: ArmOptions | undefined, {model}: Config): string {
  if (!options) return model;
  return 'from' in options ? (options.from ?? model) : model;
}

/** Positions the proof compares: enough to use every expert. */
const PROOF_TOKENS = 128;

async function proofText(dense: string, config: Config): Promise<number[][]> {
  const sources = await ensureShards(config.data, await loadTokenizer(dense), layoutOf(config).shards);
  try {
    const sequences: number[][] = [];
    for (const {train} of sources.slice(0, 2)) {
      sequences.push([...(await train.readRows(0, 1)).tokens.subarray(0, PROOF_TOKENS)]);
    }
    return sequences;
  } finally {
    await closeShards(sources);
  }
}

async function prove(start: string, dense: string, sequences: readonly (readonly number[])[]): Promise<Proof> {
  const proof = await proveConversion(dense, start, sequences);
  await recordProof(start, proof);
  if (proof.passed) return proof;
  throw new ModelError(
    `The mixture does not compute what ${dense} computes: logits differ by ${proof.maxLogitDifference}, ${proof.limit} is allowed.`,
    {hint: 'This is a defect of the conversion; please report it with the config.'},
  );
}

/** The training run of an arm. */
export function runOf(
  config: Config,
  {name: arm, start: model, config: own}: Arm,
  out: string,
  {mode, allowsChange = false}: Pick<TrainRun, 'mode' | 'allowsChange'>,
): TrainRun {
  const {name, seed, data, train: options, engine} = config;
  return {
    name,
    arm,
    model,
    out,
    shards: layoutOf(config).shards,
    seed,
    data,
    train: options,
    engine,
    config: own,
    mode,
    allowsChange,
  };
}
