/** A share in per cent, three digits at most: `12.5%`. */
export function formatPercent(share: number): string {
  return `${Number((100 * share).toPrecision(3))}%`;
}
