import type {Recovery} from '../../experiment/recover.js';
import {type Line, lines} from './lines.js';

/** Perplexity of the dense parent, before and after. */
export function recoveryText({dense, before, after}: Recovery): string {
  const shown: readonly (readonly [string, number | null])[] = [
    ['dense', dense],
    ['before', before],
    ['after', after],
  ];
  const found = shown.flatMap(([topic, value]): Line[] =>
    value === null ? [] : [[topic, `perplexity ${value.toFixed(2)}`]],
  );
  return found.length === 0 ? 'nothing was held out to measure on' : lines(found);
}
