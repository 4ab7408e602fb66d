// How many experts of each layer are shared. Counts are in units of one expert: every FFN is cut into N chunks of equal width.
import {ConfigError} from '../util/errors.js';

/** The cut of one layer, in units of one expert. */
export interface LayerShape {
  /** Routed experts. */
  readonly experts: number;
  /** Chunks that every token passes through. */
  readonly shared: number;
  /** Routed experts a token passes through. */
  readonly topK: number;
}

/** How a layer's share of specialised neurons sets its shared ratio (ExpertWeaver, eq. 4 and 5). */
export interface AdaptiveRule {
  /** A neuron with a larger CV is specialised. */
  readonly cvThreshold: number;
  /** Shared ratio of a layer whose neurons are all specialised, and of one where none is. */
  readonly alphaMin: number;
  readonly alphaMax: number;
}

/** A layer's cut and the numbers it came from. */
export interface LayerAllocation extends LayerShape {
  /** r: the share of neurons whose CV is above the threshold; null where nobody looked. */
  readonly specialisedShare: number | null;
  /** alpha: the shared ratio before it is rounded to whole experts. */
  readonly sharedRatio: number;
}

/** The constants of the paper. */
export const PAPER_RULE: AdaptiveRule = {cvThreshold: 0.6, alphaMin: 0.2, alphaMax: 0.7};

/** Rounds to the nearest integer, halves to the even one, as Python and NumPy do (`Math.round` takes them up). */
export function roundHalfEven(x: number): number {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

/** r: the share of neurons with a CV above the threshold. */
export function specialisedShare(cv_F: Float64Array, threshold: number): number {
  let numSpecialised = 0;
  for (const cv of cv_F) if (cv > threshold) numSpecialised++;
  return numSpecialised / cv_F.length;
}

/** alpha = alphaMax - (alphaMax - alphaMin) r. */
export function sharedRatio(r: number, {alphaMin, alphaMax}: AdaptiveRule): number {
  return alphaMax - (alphaMax - alphaMin) * r;
}

/** round(round(alpha F) / width): the paper rounds to neurons first, then to experts (eq. 6). */
export function sharedChunks(alpha: number, numNeurons: number, expertWidth: number): number {
  return roundHalfEven(roundHalfEven(alpha * numNeurons) / expertWidth);
}

/**
 * The layer-adaptive cut: as many shared chunks as the layer's CVs ask for, and so many routed ones that all layers
 * have the same `experts + shared` chunks, of which the same `shared + topK` are active.
 *
 * Where padding is more than an expert a neuron, shared chunks hold fewer neurons than alpha asks for.
 * @param counts what the config says; `shared` only enters through the two sums.
 * @param where config path and layer that the message starts with.
 * @throws ConfigError if the shared chunks would use up the active ones.
 */
export function adaptiveAllocation(
  cv_F: Float64Array,
  counts: LayerShape,
  rule: AdaptiveRule,
  where: string,
): LayerAllocation {
  const chunks = counts.experts + counts.shared;
  const active = counts.shared + counts.topK;
  const r = specialisedShare(cv_F, rule.cvThreshold);
  const alpha = sharedRatio(r, rule);
  const shared = sharedChunks(alpha, cv_F.length, chunkWidth(cv_F.length, counts));
  if (shared >= active) {
    throw new ConfigError(
      `${where}: adaptive allocation shares ${shared} of ${chunks} chunks, but shared + topK (= ${active}) are active: no routed expert could run.`,
      {
        hint:
          shared < chunks
            ? `Raise topK to ${shared + 1 - counts.shared} or more (in a table, lower its sparsity), or lower alphaMax (${rule.alphaMax}).`
            : `Lower alphaMax (${rule.alphaMax}).`,
      },
    );
  }
  return {experts: chunks - shared, shared, topK: active - shared, specialisedShare: r, sharedRatio: alpha};
}

/** The same cut for every layer; r is recorded where CVs are there, and decides nothing. */
export function uniformAllocation(cv_F: Float64Array | null, counts: LayerShape): LayerAllocation {
  const {experts, shared, topK} = counts;
  return {
    experts,
    shared,
    topK,
    specialisedShare: cv_F && specialisedShare(cv_F, PAPER_RULE.cvThreshold),
    sharedRatio: shared / (experts + shared),
  };
}

/** No layer has fewer active chunks than this share of the mean. */
const LEAST_ACTIVE = 0.25;
/** Layers differ less than their sensitivities do: the total of a layer enters with this power. */
const DAMPING = 0.5;

/**
 * As many active chunks over all layers as the counts ask for, where the loss feels them most (weave, step 2).
 *
 * Each layer's neurons are sorted by sensitivity and cut into chunks, whose sums rank the chunks of all layers together.
 * Of a layer's active chunks the same share as in the counts is shared, and at least one is routed.
 * @param sensitivity_LF null where a layer has none.
 * @throws ConfigError if it was not measured.
 */
export function sensitivityAllocation(
  sensitivity_LF: readonly (Float32Array | null)[],
  counts: LayerShape,
  where: string,
): LayerAllocation[] {
  const chunks = counts.experts + counts.shared;
  const active = counts.shared + counts.topK;
  const value_LN = sensitivity_LF.map((value_F) => {
    if (value_F) return dampedChunks(value_F, chunks);
    throw new ConfigError(`${where}: allocation sensitivity needs a profile with gradients.`, {
      hint: 'Set profile.gradients to true and profile again.',
    });
  });
  const least = Math.max(1, Math.ceil(LEAST_ACTIVE * active));
  const active_L = activeChunks(value_LN, {total: active * sensitivity_LF.length, least, most: chunks});
  return active_L.map((layerActive) => {
    const shared = Math.min(roundHalfEven((layerActive * counts.shared) / active), layerActive - 1);
    const experts = chunks - shared;
    return {experts, shared, topK: layerActive - shared, specialisedShare: null, sharedRatio: shared / chunks};
  });
}

/** Sums of equal runs of sorted values, largest first, scaled so that their total is its old self to the power of damping. */
function dampedChunks(value_F: Float32Array, chunks: number): Float64Array {
  const sorted_F = Float64Array.from(value_F).sort().reverse();
  const end = (n: number): number => Math.round((n * sorted_F.length) / chunks); // not whole where neurons will be appended
  const sum_N = Float64Array.from({length: chunks}, (_, n) =>
    sorted_F.subarray(end(n), end(n + 1)).reduce((sum, value) => sum + value, 0),
  );
  const total = sum_N.reduce((sum, value) => sum + value, 0);
  return total > 0 ? sum_N.map((value) => value * total ** (DAMPING - 1)) : sum_N;
}

/** How many chunks of each layer are among the best of all; of equals the one that is earlier in its layer wins. */
function activeChunks(
  value_LN: readonly Float64Array[],
  {total, least, most}: {readonly total: number; readonly least: number; readonly most: number},
): number[] {
  const active_L = value_LN.map(() => Math.min(least, most));
  const ranked = value_LN
    .flatMap((value_N, layer) => Array.from(value_N, (value, n) => ({layer, n, value})))
    .filter(({n}) => n >= least)
    .sort((a, b) => b.value - a.value || a.n - b.n || a.layer - b.layer);
  const left = total - active_L.reduce((sum, count) => sum + count, 0);
  for (const {layer} of ranked.slice(0, Math.max(0, left))) active_L[layer] = (active_L[layer] as number) + 1;
  return active_L;
}

/** Every number of equal chunks an FFN of this width can be cut into, rising: its divisors. */
export function divisibleExpertCounts(numNeurons: number): number[] {
  const small: number[] = [];
  for (let count = 1; count * count <= numNeurons; count++) if (numNeurons % count === 0) small.push(count);
  const large = small.map((count) => numNeurons / count).reverse();
  return large[0] === small.at(-1) ? [...small, ...large.slice(1)] : [...small, ...large];
}

/** Width of one chunk: F over all chunks, rounded up where they do not divide it. */
export function chunkWidth(numNeurons: number, {experts, shared}: Pick<LayerShape, 'experts' | 'shared'>): number {
  return Math.ceil(numNeurons / (experts + shared));
}

/** What decides into how many chunks an FFN is cut, and whether it may be widened for it. */
type Chunks = Pick<LayerShape, 'experts' | 'shared'> & {readonly pad: boolean};

/** Neurons of zeros to append so that all chunks are whole: up to the next multiple; 0 unless `pad` asks for it. */
export function paddingOf(numNeurons: number, {experts, shared, pad}: Chunks): number {
  const chunks = experts + shared;
  return pad ? chunkWidth(numNeurons, {experts, shared}) * chunks - numNeurons : 0;
}

/**
 * Refuses counts that do not cut the FFN into equal chunks, padded if that is asked for.
 *
 * @param where config path or `file:line:column` that the message starts with.
 * @throws ConfigError naming the nearest counts below and above that do, and what padding would add.
 */
export function requireDivisible(numNeurons: number, {experts, shared, pad}: Chunks, where: string): void {
  const chunks = experts + shared;
  if (chunks > numNeurons && pad) {
    throw new ConfigError(`${where}: experts + shared (= ${chunks}) must be at most the FFN width ${numNeurons}.`, {
      hint: 'Lower experts or shared: more chunks than neurons would leave experts that are all padding.',
    });
  }
  if (pad || numNeurons % chunks === 0) return;
  const padded = numNeurons + paddingOf(numNeurons, {experts, shared, pad: true});
  const hint = `Or set pad to true (--pad): neurons of zeros widen every FFN to ${padded}, which changes nothing that it computes.`;
  throw new ConfigError(
    `${where}: experts + shared (= ${chunks}) must divide the FFN width ${numNeurons}; ${nearestThatDo(divisibleExpertCounts(numNeurons), chunks)}.`,
    chunks > numNeurons ? {} : {hint},
  );
}

/** The nearest of some rising counts below and above one that is not among them, in words. */
export function nearestThatDo(possible: readonly number[], count: number): string {
  const nearest = [possible.findLast((one) => one < count), possible.find((one) => one > count)];
  const found = nearest.filter((one) => one !== undefined);
  return `nearest that ${found.length > 1 ? 'do' : 'does'}: ${found.join(' and ')}`;
}
