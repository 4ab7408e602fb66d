import {describe, expect, it} from 'vitest';
import {shardFingerprint} from '../../src/data/fingerprint.js';
import type {TokenShard} from '../../src/format/token-shard.js';

const metadata = {
  ...{formatVersion: 1, tokenizerSha256: '0'.repeat(64), sequenceLength: 4, source: 'a', licence: 'x'},
  ...{documents: 1, rowsPerBatch: 16},
};

/** A shard in memory of which `change` may alter rows. */
function shardOf(rows: number, change: (row: number) => number = () => 0, source = 'a'): TokenShard {
  return {
    ...{path: 'memory', rows, columns: ['tokens'] as const, metadata: {...metadata, rows, source}},
    readRows: (row) => Promise.resolve({tokens: Int32Array.from({length: 5}, (_, i) => row + i + change(row))}),
    close: () => Promise.resolve(),
  };
}

describe('shardFingerprint', () => {
  it('is the same for the same text', async () => {
    expect(await shardFingerprint(shardOf(300))).toBe(await shardFingerprint(shardOf(300)));
    expect(await shardFingerprint(shardOf(1))).toMatch(/^[0-9a-f]{64}$/);
  });

  it('tells every row of a small shard, the ends of a large one, what is shifted, and metadata', async () => {
    const small = Array.from({length: 9}, (_, at) => shardOf(9, (row) => Number(row === at)));
    const large = [0, 9999].map((at) => shardOf(10_000, (row) => Number(row === at)));
    const shifted = shardOf(10_000, (row) => Number(row > 5000));
    const shards = [shardOf(9), ...small, shardOf(9, undefined, 'b'), shardOf(10_000), ...large, shifted];
    expect(new Set(await Promise.all(shards.map((shard) => shardFingerprint(shard)))).size).toBe(shards.length);
  });
});
