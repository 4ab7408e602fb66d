// From calibration to a plan: how many chunks of each layer are shared and active, then the method that fills them.
import {ConfigError} from '../../util/errors.js';
import {createRng} from '../../util/rng.js';
import {
  adaptiveAllocation,
  type LayerAllocation,
  paddingOf,
  requireDivisible,
  sensitivityAllocation,
  uniformAllocation,
} from '../allocation.js';
import type {SplitOptions} from '../options.js';
import {type ConversionPlan, type LayerPlan, validatePlan} from '../plan.js';
import {type CvOver, checkProfile, cvRows, type LayerProfile, neuronCv} from '../statistics.js';
import {allSharedSplit} from './all-shared.js';
import {cmoeSplit, representative} from './cmoe.js';
import {contiguousSplit} from './contiguous.js';
import {appendZeros} from './cut.js';
import {expertWeaverSplit} from './expertweaver.js';
import {llamaMoeSplit} from './llama-moe.js';
import {moeficationSplit, type WeighedLayer} from './moefication.js';
import {randomSplit} from './random.js';
import {type ForeseenLayer, weaveSplit} from './weave.js';

/** What a plan is made from. */
export interface PlanInput {
  readonly method: SplitOptions;
  /** One for each layer, equally wide; the controls read nothing but their width. */
  readonly profiles: readonly LayerProfile[];
  /** `gate_proj.weight` of a layer, float32 [F, D]; asked for by methods that look at weights, one layer at a time. */
  readonly gateRows: (layer: number) => Promise<Float32Array>;
  readonly cv: CvOver;
  readonly seed: number;
  /** Config path or `file:line:column` of the method, for messages. */
  readonly where: string;
}

/** What calibration must have measured for a method. */
export interface ProfileNeeds {
  /** Whether it looks at activations at all. */
  readonly profile: boolean;
  readonly predictors: boolean;
  readonly gradients: boolean;
}

/** What the profile of a method must hold. */
export function profileNeeds(method: SplitOptions): ProfileNeeds {
  const predictors = method.method === 'weave';
  const gradients =
    method.allocation === 'sensitivity' ||
    (method.method === 'all-shared' && method.keepBy === 'sensitivity') ||
    (method.method === 'llama-moe' && method.split === 'importance');
  const isWatched = method.method !== 'all-shared' && method.router === 'representative';
  return {profile: looksAtActivations(method) || gradients || isWatched, predictors, gradients};
}

/** Whether a method looks at activations to split a layer. */
function looksAtActivations(method: SplitOptions): boolean {
  switch (method.method) {
    case 'random':
    case 'contiguous':
      return false;
    case 'moefication':
      return method.shared > 0;
    case 'llama-moe':
      return method.split === 'co-activation' || (method.split === 'k-means' && method.shared > 0);
    default:
      return true;
  }
}

function looksAtWeights(method: SplitOptions): boolean {
  return method.method === 'moefication' || (method.method === 'llama-moe' && method.split === 'k-means');
}

/**
 * Splits every layer; the same input gives the same plan, and each layer draws from its own random stream. Methods know
 * nothing of padding: parts that they leave short are filled with neurons of zeros.
 *
 * @throws as {@link planCounts} does; DataError or ModelError if a profile is unusable.
 */
export async function planConversion(input: PlanInput): Promise<ConversionPlan> {
  const {method, profiles} = input;
  const numNeurons = profiles[0]?.numNeurons ?? 0;
  const allocations = planCounts(input);
  const padding = method.method === 'all-shared' ? 0 : paddingOf(numNeurons, method);
  const layers: LayerPlan[] = [];
  for (const [layer, shape] of allocations.entries()) {
    layers.push(appendZeros(await planLayer(input, layer, shape), numNeurons, shape));
  }
  const plan: ConversionPlan = {
    method: method.method,
    numNeurons: numNeurons + padding,
    padding,
    layers,
    allocation: allocations.map(({specialisedShare, sharedRatio}) => ({specialisedShare, sharedRatio})),
  };
  validatePlan(plan);
  return plan;
}

/**
 * How many chunks of every layer are shared and active: what can be said of a plan before neurons are dealt out.
 *
 * @throws ConfigError if the counts do not cut the FFN, or a profile lacks what the method looks at.
 */
export function planCounts(input: Omit<PlanInput, 'gateRows' | 'seed'>): LayerAllocation[] {
  const {method, profiles, where} = input;
  requireDivisible(profiles[0]?.numNeurons ?? 0, method, where);
  if (profileNeeds(method).profile) profiles.forEach(checkProfile);
  requireSpread(input);
  const allocations = allocate(input);
  requireMeasured(input);
  return allocations;
}

/** Refuses a profile that was made without what a method looks at. */
function requireMeasured({method, profiles, where}: Pick<PlanInput, 'method' | 'profiles' | 'where'>): void {
  const {predictors, gradients} = profileNeeds(method);
  const lacks = (key: 'predictors' | 'gradients'): ConfigError =>
    new ConfigError(`${where}: method ${method.method} needs a profile with ${key}.`, {
      hint: `Set profile.${key} to true and profile again.`,
    });
  if (predictors && profiles.some((profile) => !profile.predicted)) throw lacks('predictors');
  if (gradients && profiles.some((profile) => !profile.gradients)) throw lacks('gradients');
}

/** Refuses to compare tasks, or samples, where there is only one. */
function requireSpread({method, profiles: [profile], cv, where}: Omit<PlanInput, 'gateRows' | 'seed'>): void {
  if (!looksAtSpread(method) || !profile || cvRows(profile, cv) > 1) return;
  const one = cv === 'tasks' ? 'task' : 'sample';
  throw new ConfigError(
    `${where}: allocation adaptive and sharedBy low-cv ask how neurons differ from ${one} to ${one}, but the profile has one ${one}.`,
    {
      hint:
        cv === 'tasks'
          ? 'Give more sources, take tasks from a field with profile.task, or set profile.cv to samples; then profile again.'
          : 'Raise profile.samplesPerTask or give more sources; then profile again.',
    },
  );
}

/** Whether a method asks for the coefficient of variation of neurons. */
function looksAtSpread(method: SplitOptions): boolean {
  return method.method === 'expertweaver' && (method.allocation === 'adaptive' || method.sharedBy === 'low-cv');
}

async function planLayer(input: PlanInput, layer: number, shape: LayerAllocation): Promise<LayerPlan> {
  const {method, profiles, gateRows} = input;
  const profile = profiles[layer] as LayerProfile;
  const gate_FD = looksAtWeights(method) ? await gateRows(layer) : new Float32Array(0);
  const predicted = profileNeeds(method).predictors ? profile.predicted : null;
  const foreseen_FP = (await predicted?.read()) ?? new Float32Array(0);
  return withRepresentatives(split(input, {layer, profile, gate_FD, foreseen_FP}, shape), profile, method);
}

interface PlannedLayer extends WeighedLayer, ForeseenLayer {
  readonly layer: number;
}

function split({method, cv, seed}: PlanInput, planned: PlannedLayer, shape: LayerAllocation): LayerPlan {
  const {layer, profile} = planned;
  const rng = createRng(seed, `partition/layer-${layer}`);
  switch (method.method) {
    case 'expertweaver':
      return expertWeaverSplit(profile, shape, {...method, cv}, rng);
    case 'cmoe':
      return cmoeSplit(profile, shape);
    case 'weave':
      return weaveSplit(planned, shape, rng);
    case 'moefication':
      return moeficationSplit(planned, shape, {normalise: true}, rng);
    case 'llama-moe':
      return llamaMoeSplit(planned, shape, method.split, rng);
    case 'random':
      return randomSplit(profile.numNeurons, shape, rng);
    case 'contiguous':
      return contiguousSplit(profile.numNeurons, shape);
    case 'all-shared':
      return allSharedSplit(profile, shape, method.keepBy);
  }
}

function withRepresentatives(plan: LayerPlan, profile: LayerProfile, method: SplitOptions): LayerPlan {
  if (method.method === 'all-shared' || method.router !== 'representative') return plan;
  return {...plan, representatives: Int32Array.from(plan.experts, (ids) => representative(profile, ids))};
}

/** The cut of every layer. */
function allocate({method, profiles, cv, where}: Omit<PlanInput, 'gateRows' | 'seed'>): LayerAllocation[] {
  switch (method.allocation) {
    case 'uniform':
      return profiles.map((profile) => {
        const isCompared = method.method === 'expertweaver' && cvRows(profile, cv) > 1;
        return uniformAllocation(isCompared ? neuronCv(profile, cv) : null, method);
      });
    case 'adaptive':
      return profiles.map((profile, layer) =>
        adaptiveAllocation(neuronCv(profile, cv), method, method, `${where}, layer ${layer}`),
      );
    case 'sensitivity':
      return sensitivityAllocation(
        profiles.map((profile) => profile.gradients?.sensitivity_F ?? null),
        method,
        where,
      );
  }
}
