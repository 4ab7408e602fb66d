import {describe, expect, it} from 'vitest';
import {isSameShard, shardFingerprint} from '../../src/data/fingerprint.js';
import type {TokenShard} from '../../src/format/token-shard.js';
import {DataError} from '../../src/util/errors.js';

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
    expect(await shardFingerprint(shardOf(1))).toMatch(/^[0-9a-f]{64}:[\w-]{2}$/);
  });

  it('tells every row of a small shard, the ends of a large one, what is shifted, and metadata', async () => {
    const small = Array.from({length: 9}, (_, at) => shardOf(9, (row) => Number(row === at)));
    const large = [0, 9999].map((at) => shardOf(10_000, (row) => Number(row === at)));
    const shifted = shardOf(10_000, (row) => Number(row > 5000));
    const shards = [shardOf(9), ...small, shardOf(9, undefined, 'b'), shardOf(10_000), ...large, shifted];
    expect(new Set(await Promise.all(shards.map((shard) => shardFingerprint(shard)))).size).toBe(shards.length);
  });

  it('takes a shard for the same where rows of it can no longer be read, if that is allowed', async () => {
    const whole = shardOf(9);
    const damaged: TokenShard = {
      ...whole,
      readRows: (row, end) => (row === 4 ? Promise.reject(new DataError('row 4')) : whole.readRows(row, end)),
    };
    await expect(shardFingerprint(damaged)).rejects.toThrow('row 4');
    const [before, after] = [await shardFingerprint(whole), await shardFingerprint(damaged, 'skip')];
    expect(after).not.toBe(before);
    expect([isSameShard(before, after), isSameShard(after, before), isSameShard(after, after)]).toEqual([
      true,
      true,
      true,
    ]);
    const other = await shardFingerprint(shardOf(9, (row) => Number(row === 5)));
    expect(isSameShard(after, other)).toBe(false);
    expect(isSameShard(before, other)).toBe(false);
    expect(isSameShard(before, await shardFingerprint(shardOf(10)))).toBe(false);
    const broken = {...whole, readRows: () => Promise.reject(new TypeError('a defect'))};
    await expect(shardFingerprint(broken, 'skip')).rejects.toThrow('a defect');
  });
});
