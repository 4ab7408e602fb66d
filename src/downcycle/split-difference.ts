import type {SplitOptions} from './options.js';

/** Why a split is not meant to equal its dense model even with all experts at work, in words; null if it is. */
export function splitDifference(method: SplitOptions): string | null {
  const reasons = [
    ...(method.method === 'all-shared' ? ['neurons were left out'] : []),
    ...(method.repair === 'refit' ? ['down projections were fitted to make up for experts that are not chosen'] : []),
  ];
  return reasons.length > 0 ? reasons.join(', and ') : null;
}
