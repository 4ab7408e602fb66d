import type {TokenShard} from '../format/token-shard.js';
import {joinRows, type ShardRows} from '../format/token-shard-rows.js';

/**
 * The same rows each time, whatever the batch: at most `maxRows` of them, spread evenly over the shard, in order.
 *
 * All batches have one size, `sequences` or the number of rows if that is less, so that one compiled function serves
 * them; the last one is filled up with a row of which nothing is predicted.
 */
export async function* evaluationBatches(
  shard: TokenShard,
  sequences: number,
  maxRows: number,
): AsyncGenerator<ShardRows> {
  const count = Math.min(maxRows, shard.rows);
  const size = Math.min(sequences, count);
  for (let begin = 0; begin < count; begin += size) {
    const places = Array.from({length: size}, (_, i) => begin + i);
    const isFull = begin + size <= count;
    yield joinRows(
      await Promise.all(
        places.map(async (place) => {
          const row = Math.floor((Math.min(place, count - 1) * shard.rows) / count);
          const read = await shard.readRows(row, row + 1);
          return isFull ? read : masked(read, place < count);
        }),
      ),
    );
  }
}

/** A row with a mask: its own if it has one, or nothing at all is predicted of it. */
function masked(row: ShardRows, isCounted: boolean): ShardRows {
  if (isCounted && row.mask) return row;
  return {...row, mask: new Int32Array(row.tokens.length).fill(isCounted ? 1 : 0)};
}
