/** Rows of packed tokens, each of sequenceLength + 1 values, row after row. */
export interface ShardRows {
  readonly tokens: Int32Array;
  /** Which document of its row a token belongs to, counted from 0; there when boundaries were kept. */
  readonly segments?: Int32Array;
  /** 1 where the token is to be predicted, 0 where not; there in supervised data. */
  readonly mask?: Int32Array;
}

/** The columns a shard may have; the first it must have. */
export const COLUMNS = ['tokens', 'segments', 'mask'] as const;

export type ColumnName = (typeof COLUMNS)[number];

/** Rows of zeros in the columns named. @param length values of each column. */
export function emptyRows(names: readonly ColumnName[], length: number): ShardRows {
  const columns = names.map((name) => [name, new Int32Array(length)] as const);
  return {tokens: new Int32Array(0), ...Object.fromEntries(columns)};
}

/** Puts rows one after the other; all must have the columns of the first. */
export function joinRows(parts: readonly ShardRows[]): ShardRows {
  const [first] = parts;
  if (!first || parts.length === 1) return first ?? {tokens: new Int32Array(0)};
  return mapColumns(first, (_, name) => concat(parts.flatMap((part) => part[name] ?? [])));
}

function mapColumns(rows: ShardRows, map: (values: Int32Array, name: ColumnName) => Int32Array): ShardRows {
  return {
    tokens: map(rows.tokens, 'tokens'),
    ...(rows.segments && {segments: map(rows.segments, 'segments')}),
    ...(rows.mask && {mask: map(rows.mask, 'mask')}),
  };
}

function concat(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
