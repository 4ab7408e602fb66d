import {hasLabel} from '../data/labels.js';
import type {SourceShards} from '../data/shards.js';
import type {TokenShard} from '../format/token-shard.js';
import {DataError} from '../util/errors.js';

/**
 * Reads the masks of every source up to the first token that is learnt.
 *
 * @throws DataError if a shard has none: a run on it would move weights by its balance losses alone, or measure nothing.
 */
export async function refuseUnlearnt(sources: readonly SourceShards[]): Promise<void> {
  for (const {name, train, valid} of sources) {
    for (const shard of valid ? [train, valid] : [train]) {
      if (!(await isLearnt(shard))) throw nothingLearnt(name, shard);
    }
  }
}

async function isLearnt(shard: TokenShard): Promise<boolean> {
  if (!shard.columns.includes('mask')) return true;
  const {rowsPerBatch, sequenceLength} = shard.metadata;
  for (let begin = 0; begin < shard.rows; begin += rowsPerBatch) {
    const rows = await shard.readRows(begin, Math.min(shard.rows, begin + rowsPerBatch)).catch(orDamaged);
    if (rows === null || hasLabel(rows, sequenceLength + 1)) return true;
  }
  return false;
}

/** Damaged rows are for the run to refuse or to leave out, once it comes to them; what they would teach is unknown. */
function orDamaged(error: unknown): null {
  if (error instanceof DataError) return null;
  throw error;
}

function nothingLearnt(source: string, {path, rows}: TokenShard): DataError {
  return new DataError(
    `${path}: nothing is learnt of source ${source}: of its ${rows} rows no mask marks a token that another stands before.`,
    {
      hint: 'Prepare it from its text again, or write 1 in the column `mask` for tokens that are to be learnt.',
    },
  );
}
