import type {TokenShard} from '../format/token-shard.js';
import {joinRows, type ShardRows} from '../format/token-shard-rows.js';

/**
 * The same batches each time: at most `maxRows` rows spread evenly over the shard, in order.
 *
 * All batches have one size, `sequences` or the number of rows if that is less, so that one compiled function serves
 * them; rows that do not fill a batch are left out.
 */
export async function* evaluationBatches(
  shard: TokenShard,
  sequences: number,
  maxRows: number,
): AsyncGenerator<ShardRows> {
  const available = Math.min(maxRows, shard.rows);
  const size = Math.min(sequences, available);
  const used = Math.floor(available / size) * size;
  for (let begin = 0; begin < used; begin += size) {
    const rows = Array.from({length: size}, (_, i) => Math.floor(((begin + i) * shard.rows) / used));
    yield joinRows(await Promise.all(rows.map((row) => shard.readRows(row, row + 1))));
  }
}
