/** How the next token is chosen from logits. */
export type Sampling =
  | {readonly kind: 'greedy'}
  | {
      readonly kind: 'random';
      /** Logits are divided by it: below 1 sharper, above 1 flatter. */
      readonly temperature: number;
      /** Only the likeliest tokens that together reach this share are drawn from (Holtzman et al. 2020); 1 is all. */
      readonly topP: number;
    };

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

function draw(
  logit_V: Float32Array,
  {temperature, topP}: Extract<Sampling, {kind: 'random'}>,
  uniform: number,
): number {
  const weight_V = softWeights(logit_V, temperature);
  const ids = Uint32Array.from(weight_V, (_, i) => i).sort(
    (a, b) => valueAt(weight_V, b) - valueAt(weight_V, a) || a - b,
  );
  const kept = nucleus(ids, weight_V, topP);
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

/** The shortest beginning of `ids`, likeliest first, whose weights reach the share `topP` of all; at least one. */
function nucleus(ids: Uint32Array, weight_V: Float64Array, topP: number): Uint32Array {
  const target = topP * totalOf(ids, weight_V);
  let sum = 0;
  const last = ids.findIndex((id) => {
    sum += valueAt(weight_V, id);
    return sum >= target;
  });
  return last < 0 ? ids : ids.subarray(0, last + 1);
}

function totalOf(ids: Uint32Array, weight_V: Float64Array): number {
  return ids.reduce((sum, id) => sum + valueAt(weight_V, id), 0);
}

function valueAt(values: Float32Array | Float64Array, index: number): number {
  return values[index] ?? Number.NEGATIVE_INFINITY;
}
