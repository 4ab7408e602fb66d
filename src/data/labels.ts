import type {ShardRows} from '../format/token-shard-rows.js';

/**
 * Whether a token of any of the rows, each `width` wide, is learnt: not the first of a row, for nothing stands before it,
 * nor one that opens a document.
 */
export function hasLabel({tokens, mask, segments}: ShardRows, width = tokens.length): boolean {
  if (!mask) return true;
  return mask.some((learnt, i) => learnt !== 0 && i % width > 0 && segments?.[i] === segments?.[i - 1]);
}
