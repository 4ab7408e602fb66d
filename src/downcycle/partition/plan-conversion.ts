// From calibration to a plan: how many chunks of each layer are shared and active, then the method that fills them.
import {createRng, type Rng} from '../../util/rng.js';
import {
  adaptiveAllocation,
  type LayerAllocation,
  requireDivisible,
  sensitivityAllocation,
  uniformAllocation,
} from '../allocation.js';
import type {SplitOptions} from '../options.js';
import {type ConversionPlan, type LayerPlan, validatePlan} from '../plan.js';
import {type CvOver, checkProfile, type LayerProfile, neuronCv} from '../statistics.js';
import {allSharedSplit} from './all-shared.js';
import {cmoeSplit, representative} from './cmoe.js';
import {contiguousSplit} from './contiguous.js';
import {expertWeaverSplit} from './expertweaver.js';
import {randomSplit} from './random.js';
import {weaveSplit} from './weave.js';

/** What a plan is made from. */
export interface PlanInput {
  readonly method: SplitOptions;
  /** One for each layer, equally wide; the controls read nothing but their width. */
  readonly profiles: readonly LayerProfile[];
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
    method.allocation === 'sensitivity' || (method.method === 'all-shared' && method.keepBy === 'sensitivity');
  const isControl = method.method === 'random' || method.method === 'contiguous';
  const isWatched = method.method !== 'all-shared' && method.router === 'representative';
  return {profile: !isControl || gradients || isWatched, predictors, gradients};
}

/**
 * Splits every layer; the same input gives the same plan, and each layer draws from its own random stream.
 *
 * @throws ConfigError if the counts do not cut the FFN; DataError or ModelError if a profile is unusable.
 */
export function planConversion(input: PlanInput): ConversionPlan {
  const {method, profiles, seed, where} = input;
  const numNeurons = profiles[0]?.numNeurons ?? 0;
  requireDivisible(numNeurons, method, where);
  if (profileNeeds(method).profile) profiles.forEach(checkProfile);
  const allocations = allocate(input);
  const plan: ConversionPlan = {
    method: method.method,
    numNeurons,
    layers: profiles.map((profile, layer) => {
      const rng = createRng(seed, `partition/layer-${layer}`);
      return withRepresentatives(split(input, profile, allocations[layer] as LayerAllocation, rng), profile, method);
    }),
    allocation: allocations.map(({specialisedShare, sharedRatio}) => ({specialisedShare, sharedRatio})),
  };
  validatePlan(plan);
  return plan;
}

function split({method, cv}: PlanInput, profile: LayerProfile, shape: LayerAllocation, rng: Rng): LayerPlan {
  switch (method.method) {
    case 'expertweaver':
      return expertWeaverSplit(profile, shape, {...method, cv}, rng);
    case 'cmoe':
      return cmoeSplit(profile, shape);
    case 'weave':
      return weaveSplit(profile, shape, rng);
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
function allocate({method, profiles, cv, where}: PlanInput): LayerAllocation[] {
  switch (method.allocation) {
    case 'uniform':
      return profiles.map((profile) =>
        uniformAllocation(method.method === 'expertweaver' ? neuronCv(profile, cv) : null, method),
      );
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
