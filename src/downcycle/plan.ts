// Which neuron of each dense FFN goes where. Shapes: F neurons of the dense FFN.
import {createHash} from 'node:crypto';
import {ModelError} from '../util/errors.js';

/**
 * Where the neurons of one layer go. Ids are ascending; all experts are equally wide, once zeros are appended. A layer without experts is dense:
 * its neurons that are not shared are left out (static pruning).
 */
export interface LayerPlan {
  /** Neurons every token passes through; may be empty. */
  readonly shared: Int32Array;
  /** Neurons of each routed expert. */
  readonly experts: readonly Int32Array[];
  /** Routed experts a token passes through; 0 without experts. */
  readonly topK: number;
  /** The neuron whose activation stands for its expert's, [E]; there if the router asks for it. */
  readonly representatives?: Int32Array;
}

/** What the conversion record keeps about a layer's cut; null where the method looks at no activations. */
export interface AllocationRecord {
  /** r: the share of neurons whose CV is above the threshold. */
  readonly specialisedShare: number | null;
  /** alpha: the shared ratio before rounding to whole experts. */
  readonly sharedRatio: number;
}

/** The split of a whole model: every neuron of a layer with experts in the shared one or in exactly one routed one. */
export interface ConversionPlan {
  readonly method: string;
  /** Width of the dense FFN, padding included. */
  readonly numNeurons: number;
  /** How many neurons of zeros were appended to it: those of the last ids. */
  readonly padding: number;
  readonly layers: readonly LayerPlan[];
  readonly allocation: readonly AllocationRecord[];
}

/** How many neurons the FFN of a plan has, and how many of them are zeros. */
export type PlanWidth = Pick<ConversionPlan, 'numNeurons' | 'padding'>;

/** The neurons of each routed expert but those of zeros. */
export function realExperts({experts}: LayerPlan, {numNeurons, padding}: PlanWidth): Int32Array[] {
  return experts.map((ids) => ids.filter((id) => id < numNeurons - padding));
}

/** Marks a shared neuron in a neuron map. */
export const SHARED = -1;
/** Marks a neuron that a layer without experts leaves out. */
export const LEFT_OUT = -2;

/**
 * Expert of every neuron, [F]: 0..E-1, {@link SHARED} or {@link LEFT_OUT}.
 *
 * @throws ModelError if a neuron is missing, listed twice or outside the FFN.
 */
export function neuronMap({shared, experts}: LayerPlan, numNeurons: number, layer: number): Int32Array {
  const unset = experts.length === 0 ? LEFT_OUT : experts.length;
  const expertOf_F = new Int32Array(numNeurons).fill(unset);
  const put = (ids: Int32Array, expert: number): void => {
    for (const id of ids) {
      if (expertOf_F[id] === undefined) throw broken(layer, `neuron ${id} is outside the FFN of ${numNeurons}`);
      if (expertOf_F[id] !== unset) throw broken(layer, `neuron ${id} is listed twice`);
      expertOf_F[id] = expert;
    }
  };
  put(shared, SHARED);
  experts.forEach(put);
  const missing = experts.length === 0 ? -1 : expertOf_F.indexOf(unset);
  if (missing >= 0) throw broken(layer, `neuron ${missing} belongs to no expert`);
  return expertOf_F;
}

/**
 * Checks that every neuron stands exactly once, ids ascend, experts are equally wide and `topK` of them can be chosen.
 *
 * @throws ModelError naming the layer and what is wrong.
 */
export function validatePlan({layers, numNeurons}: ConversionPlan): void {
  layers.forEach((plan, layer) => {
    const {shared, experts, topK} = plan;
    neuronMap(plan, numNeurons, layer);
    const unsorted = [shared, ...experts].findIndex((ids) => ids.some((id, i) => i > 0 && id < (ids[i - 1] as number)));
    if (unsorted >= 0) throw broken(layer, `${partName(unsorted)} lists its neurons out of order`);
    const width = experts[0]?.length ?? 0;
    const odd = experts.findIndex((ids) => ids.length !== width);
    if (odd >= 0) throw broken(layer, `expert ${odd} has ${experts[odd]?.length} neurons, expert 0 has ${width}`);
    const isPruned = experts.length === 0 && topK === 0 && shared.length > 0;
    if (!isPruned && !(topK >= 1 && topK <= experts.length)) {
      throw broken(layer, `topK (${topK}) must be from 1 to the number of routed experts (${experts.length})`);
    }
  });
}

/** The neuron map of every layer. @throws ModelError if the plan does not hold every neuron once. */
export function neuronMaps({layers, numNeurons}: ConversionPlan): Int32Array[] {
  return layers.map((plan, layer) => neuronMap(plan, numNeurons, layer));
}

/** {@link mapHash} of a plan. @throws ModelError if the plan does not hold every neuron once. */
export function planHash(plan: ConversionPlan): string {
  return mapHash(neuronMaps(plan));
}

/** SHA-256 of the neuron map of every layer, in hex: for each F, E and the map as little-endian int32. */
export function mapHash(maps: readonly Int32Array[]): string {
  const hash = createHash('sha256');
  for (const expertOf_F of maps) {
    const words = [expertOf_F.length, numExperts(expertOf_F), ...expertOf_F];
    const bytes = Buffer.alloc(words.length * 4);
    words.forEach((word, i) => void bytes.writeInt32LE(word, i * 4));
    hash.update(bytes);
  }
  return hash.digest('hex');
}

/** Experts in a neuron map: none is empty, so the last one is named. */
function numExperts(expertOf_F: Int32Array): number {
  return expertOf_F.reduce((most, expert) => Math.max(most, expert + 1), 0);
}

function partName(index: number): string {
  return index === 0 ? 'the shared expert' : `expert ${index - 1}`;
}

function broken(layer: number, what: string): ModelError {
  return new ModelError(`Conversion plan, layer ${layer}: ${what}.`, {hint: 'Make the plan again.'});
}
