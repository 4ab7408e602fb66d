import {formatPercent} from '../../util/percent.js';
import type {UpcycleMethod} from '../upcycle-options.js';

/** Why a model is not meant to equal the one it was copied from, in words; null if it is, with all experts at work. */
export function intendedDifference(method: UpcycleMethod): string | null {
  switch (method.method) {
    case 'sparse-upcycle':
    case 'granular-upcycle':
      return null;
    case 'drop-upcycle':
      return method.ratio > 0 ? `${formatPercent(method.ratio)} of the neurons of each copy were drawn anew` : null;
    case 'noise-upcycle': {
      const {noise, ratio} = method;
      if (noise === 0 || ratio === 0) return null;
      return `noise of ${noise} standard deviations was added to ${ratio < 1 ? `${formatPercent(ratio)} of the neurons of ` : ''}each copy`;
    }
  }
}
