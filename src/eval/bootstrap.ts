import {createRng} from '../util/rng.js';

/** How much more one model has than another, and how sure that is. */
export interface PairedDifference {
  /** The first less the second. */
  readonly difference: number;
  /** Bounds of the middle 95% of the differences of all resamples. */
  readonly interval: readonly [low: number, high: number];
  /** Share of resamples in which the first has more; one in which both have as much counts half. */
  readonly above: number;
}

/** How often is drawn. */
export interface BootstrapOptions {
  readonly seed: number;
  /** Default 10,000. */
  readonly resamples?: number;
}

/** What is left out at each end of an interval of 95%. */
const TAIL = 0.025;

/**
 * A paired bootstrap: units that both models were measured on are drawn with replacement, as many as there are, and the
 * difference of the means over all weight is taken, `Σ d / Σ w` (Efron and Tibshirani 1993, percentile intervals).
 *
 * With the models exchanged the same seed draws the same units, so that all signs turn.
 * @param deltas [N] what the first model has more than the second in each unit.
 * @param weights [N] what each unit weighs, such as its tokens.
 */
export function pairedBootstrap(
  deltas: ArrayLike<number>,
  weights: ArrayLike<number>,
  {seed, resamples = 10_000}: BootstrapOptions,
): PairedDifference {
  const rng = createRng(seed, 'bootstrap');
  const found = new Float64Array(resamples);
  for (let r = 0; r < resamples; r++) found[r] = meanOf(deltas, weights, () => rng.int(deltas.length));
  const above = found.reduce((sum, value) => sum + (value > 0 ? 1 : value === 0 ? 0.5 : 0), 0) / resamples;
  found.sort();
  const low = Math.floor(TAIL * resamples);
  return {
    difference: meanOf(deltas, weights, (i) => i),
    interval: [found[low] as number, found[resamples - 1 - low] as number],
    above,
  };
}

/** Mean over as many units as there are, the i-th of which `pick` names. */
function meanOf(deltas: ArrayLike<number>, weights: ArrayLike<number>, pick: (i: number) => number): number {
  let sum = 0;
  let weight = 0;
  for (let i = 0; i < deltas.length; i++) {
    const unit = pick(i);
    sum += deltas[unit] as number;
    weight += weights[unit] as number;
  }
  return sum / weight;
}
