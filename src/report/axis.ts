/** How the values of an axis are laid out. */
export interface AxisScale {
  readonly type: 'linear' | 'log';
  readonly domain: readonly [number, number];
  readonly ticks: readonly number[];
  /** d3 format of the tick labels. */
  readonly format: string;
}

/** From this ratio of greatest to least loss on, the axis is logarithmic. */
const LOG_RATIO = 2;
/** From this ratio on its ticks are 1, 2 and 5 times the powers of ten. */
const DECADE_RATIO = 8;
/** An axis spans at least this share of its values, so that noise alone never fills a chart. */
const MIN_SPAN = 0.01;
const TOP_GAP = 8;
const MIN_TICK_GAP = 22;

/**
 * A loss axis `height` pixels tall for these values: linear when they lie close together, else logarithmic,
 * with round ticks that never touch.
 */
export function lossScale(values: readonly number[], height: number): AxisScale {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (!Number.isFinite(low) || !Number.isFinite(high))
    return {type: 'linear', domain: [0, 1], ticks: [0, 1], format: 'd'};
  const scale = low > 0 && high / low > LOG_RATIO ? logScale(low, high, height) : linearScale(low, high, height);
  return {...scale, ticks: belowTop(scale, height)};
}

/** Drops a tick at the very top: its label would stand out above the plot and push the title up. */
function belowTop(scale: AxisScale, height: number): readonly number[] {
  const last = scale.ticks.at(-1);
  const isHigh = last !== undefined && height - pixelOf(scale, last, height) < TOP_GAP;
  return isHigh && scale.ticks.length > 2 ? scale.ticks.slice(0, -1) : scale.ticks;
}

/** Where a value stands on the axis, in pixels from its lower end. */
export function pixelOf(
  {type, domain: [low, high]}: Pick<AxisScale, 'type' | 'domain'>,
  value: number,
  height: number,
): number {
  const at = type === 'log' ? Math.log : (x: number): number => x;
  return (height * (at(value) - at(low))) / (at(high) - at(low));
}

/**
 * Moves positions as little as possible (least squares) so that they are `gap` apart and inside [low, high].
 *
 * With `z_i = p_i - i gap` in ascending order, this is isotonic regression: neighbours out of order share their mean.
 */
export function spread(positions: readonly number[], gap: number, low: number, high: number): number[] {
  const order = positions.map((_, i) => i).sort((a, b) => (positions[a] ?? 0) - (positions[b] ?? 0));
  const wanted = order.map((from, rank) => (positions[from] ?? 0) - rank * gap);
  const top = Math.max(low, high - (positions.length - 1) * gap);
  const placed = [...positions];
  isotonic(wanted).forEach((z, rank) => {
    placed[order[rank] ?? 0] = Math.min(Math.max(z, low), top) + rank * gap;
  });
  return placed;
}

/** The ascending sequence nearest to `values`, by pooling neighbours. */
function isotonic(values: readonly number[]): number[] {
  const pools: {sum: number; count: number}[] = [];
  for (const value of values) {
    let pool = {sum: value, count: 1};
    for (let last = pools.at(-1); last && last.sum / last.count > pool.sum / pool.count; last = pools.at(-1)) {
      pool = {sum: pool.sum + last.sum, count: pool.count + last.count};
      pools.pop();
    }
    pools.push(pool);
  }
  return pools.flatMap(({sum, count}) => Array.from({length: count}, () => sum / count));
}

function linearScale(low: number, high: number, height: number): AxisScale {
  const half = (1.12 / 2) * Math.max(high - low, MIN_SPAN * Math.max(Math.abs(low), Math.abs(high)) || 1);
  const domain = [(low + high) / 2 - half, (low + high) / 2 + half] as const;
  const step = niceStep((domain[1] - domain[0]) / Math.max(2, Math.floor(height / 25)));
  return {type: 'linear', domain, ticks: multiples(step, domain), format: `.${decimalsOf(step)}f`};
}

function logScale(low: number, high: number, height: number): AxisScale {
  const pad = (high / low) ** 0.05;
  const domain = [low / pad, high * pad] as const;
  const gap = (a: number, b: number): number => (height * Math.log(b / a)) / Math.log(domain[1] / domain[0]);
  const step = niceSteps(high).find((s) => gap(high - s, high) >= MIN_TICK_GAP);
  const ticks = high / low > DECADE_RATIO || !step ? decades(domain) : refinedMultiples(step, domain, gap);
  return {type: 'log', domain, ticks, format: `.${Math.max(0, ...ticks.map(decimalsOf))}~f`};
}

/** Multiples of `step`, and of a smaller round step where a log axis has room for those too. */
function refinedMultiples(
  step: number,
  [low, high]: readonly [number, number],
  gap: (a: number, b: number) => number,
): number[] {
  const numParts = String(step).includes('5') ? 5 : 2;
  const fine = step / numParts;
  const marks = multiples(step, [low - step, high]).flatMap((a) =>
    gap(a + step - fine, a + step) >= MIN_TICK_GAP ? multiples(fine, [a, a + step - fine / 2]) : [a],
  );
  return marks.filter((mark) => mark >= low && mark <= high);
}

/** Round steps below `value`, ascending, over three powers of ten. */
function niceSteps(value: number): number[] {
  const top = Math.floor(Math.log10(value));
  return [top - 2, top - 1, top]
    .flatMap((e) => [1, 2, 5].map((f) => Number((f * 10 ** e).toPrecision(1))))
    .filter((s) => s < value);
}

/** The round number (1, 2 or 5 times a power of ten) at or just above `step`. */
function niceStep(step: number): number {
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 5].find((f) => f * power >= step * 0.999) ?? 10;
  return Number((factor * power).toPrecision(1));
}

function multiples(step: number, [low, high]: readonly [number, number]): number[] {
  const first = Math.ceil(low / step);
  const count = Math.max(0, Math.floor(high / step) - first + 1);
  return Array.from({length: count}, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** 1, 2 and 5 times every power of ten in the domain. */
function decades([low, high]: readonly [number, number]): number[] {
  const powers = multiples(1, [Math.log10(low) - 1, Math.log10(high)]).map((e) => 10 ** e);
  return powers.flatMap((p) => [p, 2 * p, 5 * p]).filter((v) => v >= low && v <= high);
}

/** Decimals a value needs in plain notation. */
function decimalsOf(value: number): number {
  const [digits = '', exponent = '0'] = value.toExponential().split('e');
  return Math.max(0, (digits.split('.')[1]?.length ?? 0) - Number(exponent));
}
