const UNITS = [
  [1e18, 'E'],
  [1e15, 'P'],
  [1e12, 'T'],
  [1e9, 'B'],
  [1e6, 'M'],
  [1e3, 'k'],
] as const;

/** A count in three digits with a unit: `1.23M`, `45.6k`, `950`. Not a finite number gives `-`. */
export function formatCount(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const rounded = Number(value.toPrecision(3)); // first, so that 999 960 becomes 1.00M and never 1000k
  const unit = UNITS.find(([size]) => Math.abs(rounded) >= size);
  return unit ? `${(rounded / unit[0]).toPrecision(3)}${unit[1]}` : String(rounded);
}

/** A speed: `45.6k tok/s`. */
export function formatRate(tokensPerSecond: number): string {
  const text = formatCount(tokensPerSecond);
  return text === '-' ? text : `${text} tok/s`;
}

/** A loss in nats with three decimals: `3.412`; `-` when it is not a finite number. */
export function formatLoss(loss: number): string {
  return Number.isFinite(loss) ? loss.toFixed(3) : '-';
}

/** A time span in its two largest units: `0.42s`, `12s`, `1m 20s`, `3h 05m`, `2d 04h`. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '-';
  if (seconds < 9.995) return `${Number(seconds.toFixed(2))}s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  const hours = Math.round(whole / 3600);
  return `${Math.floor(hours / 24)}d ${two(hours % 24)}h`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
