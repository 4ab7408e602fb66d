import {UsageError} from '../util/errors.js';

/** How the next token is chosen from logits. */
export type Sampling =
  | {readonly kind: 'greedy'}
  | {
      readonly kind: 'random';
      /** Logits are divided by it: below 1 sharper, above 1 flatter. */
      readonly temperature: number;
      /** Only so many of the likeliest tokens are drawn from (Fan et al. 2018); default all. */
      readonly topK?: number;
      /** Of those only the likeliest that together reach this share (Holtzman et al. 2020); 1 is all. */
      readonly topP: number;
    };

type RandomSampling = Extract<Sampling, {kind: 'random'}>;

/** @throws UsageError naming the number that no draw can be made by. */
export function checkSampling(sampling: Sampling): void {
  if (sampling.kind === 'greedy') return;
  const {temperature, topP, topK = 1} = sampling;
  if (!(temperature > 0 && temperature < Number.POSITIVE_INFINITY)) {
    throw new UsageError(`temperature is ${temperature}; a number above 0 is needed.`, {
      hint: 'Greedy sampling is the limit of low temperatures.',
    });
  }
  if (!(topP > 0 && topP <= 1)) throw new UsageError(`topP is ${topP}; a share above 0 and at most 1 is needed.`);
  if (!(Number.isInteger(topK) && topK > 0)) {
    throw new UsageError(`topK is ${topK}; a whole number of at least 1 is needed.`);
  }
}

/**
 * The next token: the largest logit (ties to the lower id), or one drawn by its probability.
 *
 * @param logit_V every one a number; `uniform` in [0, 1) decides the draw, greedy choice ignores it.
 */
export function pickToken(logit_V: Float32Array, sampling: Sampling, uniform: number): number {
  switch (sampling.kind) {
    case 'greedy':
      return largest(logit_V);
    case 'random':
      return draw(logit_V, sampling, uniform);
  }
}

function largest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (valueAt(values, i) > valueAt(values, best)) best = i;
  return best;
}

function draw(logit_V: Float32Array, {temperature, topP, topK}: RandomSampling, uniform: number): number {
  const weight_V = softWeights(logit_V, temperature);
  const kept = candidates(weight_V, topK ?? weight_V.length, topP);
  let rest = uniform * totalOf(kept, weight_V);
  for (const id of kept) {
    rest -= valueAt(weight_V, id);
    if (rest < 0) return id;
  }
  return kept.at(-1) ?? 0; // rounding left a rest
}

/** exp((logit − largest) / temperature) in float64; probabilities but for their sum. */
function softWeights(logit_V: Float32Array, temperature: number): Float64Array {
  const top = valueAt(logit_V, largest(logit_V));
  return Float64Array.from(logit_V, (logit) => Math.exp((logit - top) / temperature));
}

/**
 * The ids that may be drawn: of the `topK` likeliest, ties to the lower id, the shortest beginning that reaches the share `topP`
 * of them; at least one.
 *
 * Weights are sorted without their ids, which a typed array does many times faster than any comparison of ours.
 */
function candidates(weight_V: Float64Array, topK: number, topP: number): Uint32Array {
  if (topK >= weight_V.length && topP === 1) return Uint32Array.from(weight_V, (_, id) => id);
  const falling = weight_V.slice().sort().reverse().subarray(0, topK);
  const count = lengthOf(falling, topP);
  const least = valueAt(falling, count - 1);
  const ids: number[] = [];
  for (let id = 0; id < weight_V.length; id++) if (valueAt(weight_V, id) >= least) ids.push(id);
  const ranked = Uint32Array.from(ids).sort((a, b) => valueAt(weight_V, b) - valueAt(weight_V, a) || a - b);
  return ranked.subarray(0, count);
}

/** How many of the weights, from the first, reach the share `topP` of all. */
function lengthOf(falling: Float64Array, topP: number): number {
  const target = topP * falling.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const last = falling.findIndex((weight) => {
    sum += weight;
    return sum >= target;
  });
  return last < 0 ? falling.length : last + 1;
}

function totalOf(ids: Uint32Array, weight_V: Float64Array): number {
  return ids.reduce((sum, id) => sum + valueAt(weight_V, id), 0);
}

function valueAt(values: Float32Array | Float64Array, index: number): number {
  return values[index] ?? Number.NEGATIVE_INFINITY;
}
