/** One measured loss, and how far training was. */
export interface CurvePoint {
  readonly step: number;
  /** Training tokens seen so far. */
  readonly tokens: number;
  /** Floating point operations spent so far. */
  readonly flops: number;
  /** Mean cross-entropy, nats a token. */
  readonly loss: number;
}

/** The loss of one run, in order of training. */
export interface Curve {
  /** What the run is called in the report. */
  readonly label: string;
  readonly arm: string;
  readonly points: readonly CurvePoint[];
}

/** A point of a drawn curve; `x` is tokens, FLOPs or steps. */
export interface XY {
  readonly x: number;
  readonly loss: number;
}

/** A point of the mean over seeds, with the least and greatest loss of any seed there. */
export interface BandPoint extends XY {
  readonly low: number;
  readonly high: number;
}

/**
 * Bias-corrected exponential moving average, `y_t = sum_i w^(t-i) x_i / sum_i w^(t-i)` with `w = smoothing`.
 *
 * It starts at the first value, not at zero, so that early points are not pulled down; `smoothing` 0 changes nothing.
 */
export function smooth(points: readonly CurvePoint[], smoothing: number): CurvePoint[] {
  let sum = 0;
  let weight = 0;
  return points.map((point) => {
    sum = smoothing * sum + point.loss;
    weight = smoothing * weight + 1;
    return {...point, loss: sum / weight};
  });
}

/** The points of a curve along one axis: finite ones, ascending; of several at one x the last one counts. */
export function along(points: readonly CurvePoint[], axis: 'tokens' | 'flops' | 'steps'): XY[] {
  const key = axis === 'steps' ? 'step' : axis;
  const byX = new Map<number, XY>();
  for (const point of points) {
    const x = point[key];
    if (Number.isFinite(x) && Number.isFinite(point.loss)) byX.set(x, {x, loss: point.loss});
  }
  return [...byX.values()].sort((a, b) => a.x - b.x);
}

/**
 * Mean, least and greatest loss over seeds, at every x that any seed measured and all seeds cover.
 *
 * Between the points of a seed its loss is interpolated linearly. One seed gives a band without width.
 */
export function seedBand(seeds: readonly (readonly XY[])[]): BandPoint[] {
  const start = Math.max(...seeds.map((points) => points[0]?.x ?? Number.POSITIVE_INFINITY));
  const end = Math.min(...seeds.map((points) => points.at(-1)?.x ?? Number.NEGATIVE_INFINITY));
  const grid = [...new Set(seeds.flatMap((points) => points.map(({x}) => x)))]
    .filter((x) => x >= start && x <= end)
    .sort((a, b) => a - b);
  return grid.map((x) => {
    const losses = seeds.map((points) => lossAt(points, x));
    const mean = losses.reduce((a, b) => a + b, 0) / losses.length;
    return {x, loss: mean, low: Math.min(...losses), high: Math.max(...losses)};
  });
}

/** The loss at `x` by linear interpolation; outside the curve the value of its nearest end; NaN if it is empty. */
export function lossAt(points: readonly XY[], x: number): number {
  const after = firstAtOrAfter(points, x);
  const b = points[after] ?? points.at(-1);
  const a = points[after - 1] ?? b;
  if (!a || !b) return Number.NaN;
  if (b.x <= a.x || x >= b.x) return b.loss;
  return a.loss + ((b.loss - a.loss) * (x - a.x)) / (b.x - a.x);
}

/** Where a curve first comes down to `loss`, interpolated linearly between its points; null if it never does. */
export function firstReach(points: readonly XY[], loss: number): number | null {
  const i = points.findIndex((point) => point.loss <= loss);
  const b = points[i];
  if (!b) return null;
  const a = points[i - 1];
  return a ? a.x + ((b.x - a.x) * (a.loss - loss)) / (a.loss - b.loss) : b.x;
}

/** At most `limit` points (two or more), evenly chosen, the first and the last among them. */
export function thin<T>(points: readonly T[], limit: number): readonly T[] {
  if (points.length <= limit) return points;
  const stride = (points.length - 1) / (limit - 1);
  return Array.from({length: limit}, (_, i) => points[Math.round(i * stride)] as T);
}

/** Index of the first point whose x is at least `x`, by bisection; the length if there is none. */
function firstAtOrAfter(points: readonly XY[], x: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((points[middle]?.x ?? x) < x) low = middle + 1;
    else high = middle;
  }
  return low;
}
