import {createHash} from 'node:crypto';
import type {TokenShard} from '../format/token-shard.js';
import {COLUMNS} from '../format/token-shard-rows.js';

/** Rows that are looked at: all of a small shard. */
const SAMPLE = 256;

/**
 * SHA-256 that tells one shard from another, in hex: its metadata, and at most 256 rows spread evenly over it.
 *
 * Packed text that was changed in one place is shifted from there on, so rows behind it differ. No proof against forgery.
 * @param damaged `skip` looks at the metadata alone, so that a run whose rows are damaged is still the same run.
 */
export async function shardFingerprint(shard: TokenShard, damaged: 'stop' | 'skip' = 'stop'): Promise<string> {
  const {metadata, rows} = shard;
  const hash = createHash('sha256').update(JSON.stringify(metadata));
  if (damaged === 'skip') return hash.digest('hex');
  const count = Math.min(SAMPLE, rows);
  for (let i = 0; i < count; i++) {
    const row = count === rows ? i : Math.floor((i * (rows - 1)) / (count - 1));
    const found = await shard.readRows(row, row + 1);
    for (const name of COLUMNS) hash.update(found[name] ?? '');
  }
  return hash.digest('hex');
}
