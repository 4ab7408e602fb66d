import {z} from 'zod';

const UNITS: Readonly<Record<string, number>> = {'': 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12};
const PATTERN = /^(\d[\d_]*(?:\.\d+)?)\s*([kmbgt]?)$/i;

/** The number in `200k`, `1.5B`, `10_000` or `12`: k, M, B (or G) and T stand for powers of a thousand; NaN if it is none. */
export function parseQuantity(text: string): number {
  const [, digits, unit] = PATTERN.exec(text.trim()) ?? [];
  if (digits === undefined || unit === undefined) return Number.NaN;
  const value = Number(digits.replaceAll('_', '')) * (UNITS[unit.toLowerCase()] ?? Number.NaN);
  // 1.1 * 1e6 is a hair off; a fraction of one is not.
  const rounded = Math.round(value);
  return Math.abs(value - rounded) < 1e-6 * rounded ? rounded : value;
}

const expected = ({input}: {readonly input?: unknown}): string =>
  `expected a number such as 4096, 200k or 1.5B, found ${JSON.stringify(input)}`;

/** A whole positive number in a config, written plainly or with a unit: `200k`, `1.5B`. */
export const quantity = z
  .union([z.number(), z.string().regex(PATTERN, {error: expected}).transform(parseQuantity)], {error: expected})
  .pipe(z.int().min(1));
