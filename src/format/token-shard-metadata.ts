import {z} from 'zod';
import {DataError} from '../util/errors.js';

/** What the Arrow schema of a shard says about it; stored as strings, Arrow knows no others. */
export interface ShardMetadata {
  readonly formatVersion: number;
  /** SHA-256 of the tokenizer.json that made the ids. */
  readonly tokenizerSha256: string;
  /** Tokens predicted in a row; a row holds one more. */
  readonly sequenceLength: number;
  /** Name of the source, and where its text came from. */
  readonly source: string;
  readonly licence: string;
  readonly documents: number;
  readonly rows: number;
  /** Rows of every record batch but the last, so that a row is found without reading the others. */
  readonly rowsPerBatch: number;
}

export const SHARD_FORMAT_VERSION = 1;

const count = z.stringFormat('count', /^\d+$/).transform(Number);
const positive = count.pipe(z.int().positive());

const metadataSchema = z.object({
  formatVersion: positive,
  tokenizerSha256: z.string().regex(/^[0-9a-f]{64}$/),
  sequenceLength: positive,
  source: z.string(),
  licence: z.string(),
  documents: count,
  rows: positive,
  rowsPerBatch: positive,
});

/** @throws DataError naming the first key that is missing or wrong, or the version that is newer than ours. */
export function parseShardMetadata(path: string, found: ReadonlyMap<string, string>): ShardMetadata {
  refuseNewer(path, found.get('formatVersion'));
  const parsed = metadataSchema.safeParse(Object.fromEntries(found));
  if (parsed.success) return parsed.data;
  const key = parsed.error.issues[0]?.path.join('.') ?? '';
  const value = found.get(key);
  const what = value === undefined ? `lacks the metadata \`${key}\`` : `has the wrong metadata \`${key}\`: ${value}`;
  throw new DataError(`${path} is no token shard of ours: it ${what}.`, {hint: 'Make it with `downcycle prepare`.'});
}

/** The same metadata as Arrow stores it. */
export function formatShardMetadata(metadata: ShardMetadata): Map<string, string> {
  return new Map(Object.entries(metadata).map(([key, value]) => [key, String(value)]));
}

function refuseNewer(path: string, version: string | undefined): void {
  if (version === undefined || !(Number(version) > SHARD_FORMAT_VERSION)) return;
  throw new DataError(`${path} has format version ${version}; this downcycle reads up to ${SHARD_FORMAT_VERSION}.`, {
    hint: 'Update downcycle or prepare the text again.',
  });
}
