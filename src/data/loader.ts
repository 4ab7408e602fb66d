import type {TokenShard} from '../format/token-shard.js';
import {joinRows, type ShardRows} from '../format/token-shard-rows.js';
import {DataError} from '../util/errors.js';
import {createRng, type RngState, restoreRng, shuffle} from '../util/rng.js';

/** Rows that are trained on together, each of sequenceLength + 1 values, row after row. */
export interface Batch extends ShardRows {
  /** For each row the index of its source. */
  readonly sources: readonly number[];
}

/** Where a loader stands; plain JSON. */
export interface LoaderState {
  readonly seed: number;
  /** Of the draws among the sources. */
  readonly rng: RngState;
  readonly sources: readonly SourceState[];
}

interface SourceState {
  readonly name: string;
  readonly rows: number;
  readonly epoch: number;
  /** Rows of this epoch that were given out. */
  readonly cursor: number;
}

export interface WeightedShard {
  readonly name: string;
  readonly shard: TokenShard;
  /** Share of the rows, relative to the other shards. */
  readonly weight: number;
}

export interface LoaderOptions {
  readonly shards: readonly WeightedShard[];
  /** Rows of a batch. */
  readonly sequences: number;
  readonly seed: number;
  /** Continues where this was taken. */
  readonly state?: LoaderState;
}

/** An endless stream of batches. */
export interface Loader {
  next(): Promise<Batch>;
  /** Where the next batch will begin. */
  state(): LoaderState;
}

/**
 * A stream of rows that depends on the shards, their weights and the seed alone.
 *
 * Each row's source is drawn by weight; each source is gone through in a new order every epoch. The size of a batch cuts
 * the stream and does not change it, so all who read with one seed see the same rows in the same order.
 * @throws DataError if the shards differ in length or columns, or `state` belongs to another seed or other shards.
 */
export function createLoader({shards, sequences, seed, state}: LoaderOptions): Loader {
  checkAlike(shards);
  if (state) checkState(state, shards, seed);
  const rng = state ? restoreRng(state.rng) : createRng(seed, 'data mixture');
  const walks = shards.map((shard, i) => createWalk(shard, seed, state?.sources[i]));
  const choose = chooser(shards.map(({weight}) => weight));
  return {
    next: async () => {
      const sources = Array.from({length: sequences}, () => choose(rng.uniform()));
      const reads = sources.map((source) => walks[source]?.read());
      return {...joinRows(await Promise.all(reads.filter((read) => read !== undefined))), sources};
    },
    state: () => ({seed, rng: rng.state(), sources: walks.map((walk) => walk.state())}),
  };
}

/** One source gone through row by row. */
interface Walk {
  /** Moves on at once and reads the row it stood on. */
  read(): Promise<ShardRows>;
  state(): SourceState;
}

function createWalk({name, shard}: WeightedShard, seed: number, state?: SourceState): Walk {
  let {epoch, cursor} = state ?? {epoch: 0, cursor: 0};
  let order = orderOf(name, shard.rows, seed, epoch);
  return {
    read: () => {
      if (cursor === shard.rows) {
        epoch++;
        cursor = 0;
        order = orderOf(name, shard.rows, seed, epoch);
      }
      const row = order[cursor++] ?? 0;
      return shard.readRows(row, row + 1);
    },
    state: () => ({name, rows: shard.rows, epoch, cursor}),
  };
}

/** The order of the rows in one epoch; 4 bytes a row. */
function orderOf(name: string, rows: number, seed: number, epoch: number): Uint32Array {
  const order = Uint32Array.from({length: rows}, (_, i) => i);
  return shuffle(order, createRng(seed, `data order of ${name}, epoch ${epoch}`));
}

/** Turns a uniform number into an index, each as often as its weight says. */
function chooser(weights: readonly number[]): (uniform: number) => number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let sum = 0;
  const bounds = weights.map((weight) => {
    sum += weight;
    return sum / total;
  });
  return (uniform) => {
    const found = bounds.findIndex((bound) => uniform < bound);
    return found < 0 ? bounds.length - 1 : found; // the last bound may round below 1
  };
}

function checkAlike(shards: readonly WeightedShard[]): void {
  const [first] = shards;
  if (!first) throw new DataError('There are no shards to read.', {hint: 'Name a source in data.sources.'});
  for (const {shard} of shards) {
    const [a, b] = [first.shard, shard].map(describe);
    if (a === b) continue;
    throw new DataError(`${first.shard.path} has ${a}, ${shard.path} has ${b}; they cannot be mixed.`, {
      hint: 'Prepare them with the same options.',
    });
  }
}

function describe({metadata, columns}: TokenShard): string {
  return `rows of ${metadata.sequenceLength} with ${columns.join(', ')}`;
}

function checkState(state: LoaderState, shards: readonly WeightedShard[], seed: number): void {
  if (state.seed !== seed) {
    throw new DataError(`The saved data position has seed ${state.seed}, the run has ${seed}.`, {
      hint: 'Resume with the seed of the run.',
    });
  }
  const describeRows = (sources: readonly {name: string; rows: number}[]): string =>
    sources.map(({name, rows}) => `${name} (${rows} rows)`).join(', ');
  const saved = describeRows(state.sources);
  const found = describeRows(shards.map(({name, shard}) => ({name, rows: shard.rows})));
  if (saved === found) return;
  throw new DataError(`The saved data position is of ${saved}; the sources are ${found}.`, {
    hint: 'Resume with the sources of the run.',
  });
}
