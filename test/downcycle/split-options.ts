import {type SplitOptions, splitSchema} from '../../src/downcycle/options.js';

/** Options of a split with their defaults filled in. */
export function splitOptions(input: object): SplitOptions {
  return splitSchema.parse(input);
}
