import {formatPercent} from '../util/percent.js';
import {isDive} from './dive-options.js';
import type {MethodOptions} from './options.js';
import {splitDifference} from './split-difference.js';
import {intendedDifference} from './upcycle/difference.js';
import {isUpcycle} from './upcycle-options.js';

/** Why what a method makes is not meant to equal its dense model with all experts at work, in words; null if it is. */
export function differenceOf(method: MethodOptions): string | null {
  if (isUpcycle(method)) return intendedDifference(method);
  if (!isDive(method)) return splitDifference(method);
  const {keep} = method;
  return keep < 1
    ? `each expert keeps ${formatPercent(keep)} of the neurons, the mean of the others is its bias`
    : null;
}
