// How the experts of a mixture are cut once more.
import type {Architecture, FfnLayout} from '../../model/architecture.js';
import {ConfigError, ModelError} from '../../util/errors.js';
import {divisibleExpertCounts, nearestThatDo} from '../allocation.js';
import type {CmoeOptions} from '../options.js';
import {cmoeSplit, representative} from '../partition/cmoe.js';
import {type LayerPlan, neuronMap} from '../plan.js';
import type {InnerLayerRecord} from '../provenance.js';
import type {MarkerProfile} from '../statistics.js';

/** The cut of one expert; its representatives are always there. */
export interface ExpertPlan extends LayerPlan {
  readonly representatives: Int32Array;
}

/** What these options must be for a cut inside experts; what else they offer is made of whole dense FFNs. */
const WORDS = {
  router: 'representative',
  allocation: 'uniform',
  outputScale: 'none',
  regroup: 0,
  repair: 'none',
  pad: false,
} as const satisfies Partial<CmoeOptions>;

/** Whether a model has routed experts. */
export function hasExperts({ffn}: Architecture): boolean {
  return ffn.some(({kind}) => kind === 'moe');
}

/**
 * Refuses a mixture that cannot be cut once more as a method says, whatever calibration says.
 *
 * @throws ModelError if it has no experts, or these have experts inside already.
 * @throws ConfigError if the counts do not cut its experts, nothing would be shared, or an option is not to be had.
 */
export function requireCuttable(architecture: Architecture, method: CmoeOptions, model: string, where: string): void {
  const {ffn} = architecture;
  if (!hasExperts(architecture)) throw new ModelError(`${model}: no layer has experts to cut; a mixture is needed.`);
  const nested = ffn.findIndex((layout) => layout.kind === 'moe' && layout.inner);
  if (nested >= 0) {
    throw new ModelError(`${model}: the experts of layer ${nested} have experts inside already.`, {
      hint: 'Give the mixture that it was made from.',
    });
  }
  if (method.weights === 'one-plus-scaled') {
    throw new ConfigError(
      `${where}: ${model} is a mixture; cmoe cuts its experts with weights one or score, not ${method.weights}.`,
      {hint: 'Set weights to one.'},
    );
  }
  const odd = Object.entries(WORDS).find(([name, word]) => method[name as keyof typeof WORDS] !== word);
  if (odd) {
    const [name, word] = odd;
    const found = String(method[name as keyof typeof WORDS]);
    throw new ConfigError(
      `${where}: ${model} is a mixture; cmoe cuts its experts with ${name} ${word} only, not ${found}.`,
    );
  }
  if (method.shared === 0) {
    throw new ConfigError(`${where}: ${model} is a mixture; cmoe keeps a shared part in each of its experts.`, {
      hint: 'Set shared to 1 or more.',
    });
  }
  ffn.forEach((layout, layer) => {
    requireDivisible(layout, layer, method, where);
  });
}

function requireDivisible(layout: FfnLayout, layer: number, {experts, shared}: CmoeOptions, where: string): void {
  if (layout.kind === 'dense' || layout.expertWidth % (experts + shared) === 0) return;
  const chunks = experts + shared;
  throw new ConfigError(
    `${where}: experts + shared (= ${chunks}) must divide the ${layout.expertWidth} neurons of the experts of layer ${layer}; ${nearestThatDo(divisibleExpertCounts(layout.expertWidth), chunks)}.`,
  );
}

/**
 * The cut of every expert of each layer by the tokens that reach it (CMoE, section 3.1 and 3.2). Of an expert that none
 * reaches, all neurons are alike, and stay in the order they have.
 *
 * @throws ModelError if a neuron would not be in exactly one part: a defect.
 */
export function planExperts(layers: readonly (readonly MarkerProfile[])[], shape: CmoeOptions): ExpertPlan[][] {
  return layers.map((experts, layer) =>
    experts.map((profile) => {
      const plan = cmoeSplit(profile, shape);
      neuronMap(plan, profile.numNeurons, layer);
      return {...plan, representatives: Int32Array.from(plan.experts, (ids) => representative(profile, ids))};
    }),
  );
}

/** Numbers of the experts of a layer that no token of the calibration text reached. */
export function unreached(experts: readonly MarkerProfile[]): number[] {
  return experts.flatMap(({marker_NM}, expert) => (marker_NM.length === 0 ? [expert] : []));
}

/** Place of every neuron in its expert, the experts of a layer one after another, [E·F]: see `readNeuronMaps`. */
export function innerMap(experts: readonly ExpertPlan[], numNeurons: number, layer: number): Int32Array {
  const map = new Int32Array(experts.length * numNeurons);
  experts.forEach((plan, expert) => {
    map.set(neuronMap(plan, numNeurons, layer), expert * numNeurons);
  });
  return map;
}

/** One line a layer with experts that no calibration token reached. */
export function unreachedTexts(layers: readonly (InnerLayerRecord | null)[]): string[] {
  return layers.flatMap((layer, l) => {
    if (!layer || layer.unreached.length === 0) return [];
    const [names, they] = layer.unreached.length > 1 ? ['experts', 'they are'] : ['expert', 'it is'];
    return [
      `layer ${l}: no calibration token reached ${names} ${layer.unreached.join(', ')}; ${they} cut in the order of the neurons. More or other text may reach them: raise profile.samplesPerTask, or add sources.`,
    ];
  });
}
