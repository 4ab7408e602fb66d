import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {onTestFinished} from 'vitest';
import {openTokenShard, type TokenShard} from '../../src/format/token-shard.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {createTokenShardWriter} from '../../src/format/token-shard-writer.js';

export const STORIES = 'test/fixtures/tokenizer/stories260k';
export const BYTE_LEVEL = 'test/fixtures/tokenizer/byte-level';
export const SHA = 'ab'.repeat(32);

/** A folder that is gone after the test. */
export async function tempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-test-'));
  onTestFinished(() => rm(folder, {recursive: true, force: true}));
  return folder;
}

/** Row i holds the numbers from 1000 i. */
export function countingRows(rows: number, width: number, withSegments = false): ShardRows[] {
  return Array.from({length: rows}, (_, i) => {
    const tokens = Int32Array.from({length: width}, (_, j) => 1000 * i + j);
    return withSegments ? {tokens, segments: tokens.map((_, j) => (j > 1 ? 1 : 0))} : {tokens};
  });
}

export async function writeShard(path: string, rows: readonly ShardRows[], sequenceLength: number): Promise<void> {
  const writer = await createTokenShardWriter(path, {
    tokenizerSha256: SHA,
    sequenceLength,
    source: 's',
    licence: 'MIT',
  });
  for (const row of rows) await writer.append(row);
  await writer.finish(3);
}

/** An open shard of counting rows, closed after the test. */
export async function countingShard(path: string, rows: number, sequenceLength = 4): Promise<TokenShard> {
  await writeShard(path, countingRows(rows, sequenceLength + 1), sequenceLength);
  const shard = await openTokenShard(path);
  onTestFinished(() => shard.close());
  return shard;
}

export async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
