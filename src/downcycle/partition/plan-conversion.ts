// From calibration to a plan: the cut of each layer, then the method that fills it.
import {createRng} from '../../util/rng.js';
import {
  adaptiveAllocation,
  type LayerAllocation,
  type LayerShape,
  requireDivisible,
  uniformAllocation,
} from '../allocation.js';
import type {SplitOptions} from '../options.js';
import {type AllocationRecord, type ConversionPlan, type LayerPlan, validatePlan} from '../plan.js';
import {type CvOver, checkProfile, type LayerProfile, neuronCv} from '../statistics.js';
import {contiguousSplit} from './contiguous.js';
import {expertWeaverSplit} from './expertweaver.js';
import {randomSplit} from './random.js';

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

/** One layer's share of a plan. */
interface PlannedLayer {
  readonly plan: LayerPlan;
  readonly allocation: AllocationRecord;
}

/**
 * Splits every layer; the same input gives the same plan, and each layer draws from its own random stream.
 *
 * @throws ConfigError if the counts do not cut the FFN; DataError or ModelError if a profile is unusable.
 */
export function planConversion(input: PlanInput): ConversionPlan {
  const numNeurons = input.profiles[0]?.numNeurons ?? 0;
  requireDivisible(numNeurons, input.method, input.where);
  const planned = input.profiles.map((profile, layer) => planLayer(input, profile, layer));
  const plan: ConversionPlan = {
    method: input.method.method,
    numNeurons,
    layers: planned.map((layer) => layer.plan),
    allocation: planned.map((layer) => layer.allocation),
  };
  validatePlan(plan);
  return plan;
}

function planLayer({method, cv, seed, where}: PlanInput, profile: LayerProfile, layer: number): PlannedLayer {
  const rng = createRng(seed, `partition/layer-${layer}`);
  switch (method.method) {
    case 'expertweaver': {
      checkProfile(profile, layer);
      const shape = allocate(method, neuronCv(profile, cv), layer, where);
      const {specialisedShare, sharedRatio} = shape;
      return {
        plan: expertWeaverSplit(profile, shape, {...method, cv}, rng),
        allocation: {specialisedShare, sharedRatio},
      };
    }
    case 'random':
      return {plan: randomSplit(profile.numNeurons, method, rng), allocation: fixedRatio(method)};
    case 'contiguous':
      return {plan: contiguousSplit(profile.numNeurons, method), allocation: fixedRatio(method)};
  }
}

function allocate(
  method: Extract<SplitOptions, {method: 'expertweaver'}>,
  cv_F: Float64Array,
  layer: number,
  where: string,
): LayerAllocation {
  if (method.allocation === 'uniform') return uniformAllocation(cv_F, method);
  return adaptiveAllocation(cv_F, method, method, `${where}, layer ${layer}`);
}

function fixedRatio({experts, shared}: LayerShape): AllocationRecord {
  return {specialisedShare: null, sharedRatio: shared / (experts + shared)};
}
