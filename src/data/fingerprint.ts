import {createHash} from 'node:crypto';
import type {TokenShard} from '../format/token-shard.js';
import {COLUMNS} from '../format/token-shard-rows.js';
import {DataError} from '../util/errors.js';

/** Rows that are looked at: all of a small shard. */
const SAMPLE = 256;
/** Characters of a row's part. */
const PART = 2;
/** The part of a row that cannot be read. */
const UNREADABLE = '.'.repeat(PART);

/**
 * Tells one shard from another: SHA-256 of its metadata in hex, a colon, and 12 bits of each of at most 256 rows spread evenly
 * over it.
 *
 * Packed text that was changed in one place is shifted from there on, so rows behind it differ. No proof against forgery.
 * @param damaged `skip` lets rows that cannot be read stand for any: a run that loses some is still the same run.
 * @throws DataError if a row cannot be read, unless that is allowed.
 */
export async function shardFingerprint(shard: TokenShard, damaged: 'stop' | 'skip' = 'stop'): Promise<string> {
  const {metadata, rows} = shard;
  const head = createHash('sha256').update(JSON.stringify(metadata)).digest('hex');
  const count = Math.min(SAMPLE, rows);
  const parts: string[] = [];
  for (let i = 0; i < count; i++) {
    const row = count === rows ? i : Math.floor((i * (rows - 1)) / (count - 1));
    const part = rowPart(shard, row);
    parts.push(await (damaged === 'skip' ? part.catch(unreadable) : part));
  }
  return `${head}:${parts.join('')}`;
}

/** Whether two fingerprints are of the same shard, as far as its rows could be read. */
export function isSameShard(a: string, b: string): boolean {
  const [[headA, rowsA = ''], [headB, rowsB = '']] = [a.split(':'), b.split(':')] as [string[], string[]];
  if (headA !== headB || rowsA.length !== rowsB.length) return false;
  for (let at = 0; at < rowsA.length; at += PART) {
    const [one, other] = [rowsA.slice(at, at + PART), rowsB.slice(at, at + PART)];
    if (one !== other && one !== UNREADABLE && other !== UNREADABLE) return false;
  }
  return true;
}

async function rowPart(shard: TokenShard, row: number): Promise<string> {
  const found = await shard.readRows(row, row + 1);
  const hash = createHash('sha256');
  for (const name of COLUMNS) hash.update(found[name] ?? '');
  return hash.digest('base64url').slice(0, PART);
}

function unreadable(error: unknown): string {
  if (error instanceof DataError) return UNREADABLE;
  throw error;
}
