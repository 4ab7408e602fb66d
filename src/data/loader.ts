import type {TokenShard} from '../format/token-shard.js';
import {joinRows, type ShardRows} from '../format/token-shard-rows.js';
import {DataError} from '../util/errors.js';
import {createPermutation, type Permutation} from '../util/permutation.js';
import {createRng, type RngState, restoreRng} from '../util/rng.js';

/** Rows that are trained on together, each of sequenceLength + 1 values, row after row. */
export interface Batch extends ShardRows {
  /** For each row the index of its source, and its place in that source's shard. */
  readonly sources: readonly number[];
  readonly rows: readonly number[];
  /** What was wrong with rows that others stand in for, a line each; see {@link LoaderOptions.damaged}. */
  readonly damaged: readonly string[];
}

/** Where a loader stands; plain JSON. */
export interface LoaderState {
  /** Of the order of rows; 1 held a shuffled list. */
  readonly version: number;
  readonly seed: number;
  /** Of the draws among the sources. */
  readonly rng: RngState;
  readonly sources: readonly SourceState[];
}

interface SourceState {
  readonly name: string;
  readonly rows: number;
  /** Whole passes over the rows before this one. */
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
  /**
   * What becomes of a row that cannot be read: `stop`, the default, throws; `skip` leaves it out, and the next readable row of
   * its epoch stands in for it, so that the stream hangs on what is damaged alone and never on where a run was resumed.
   */
  readonly damaged?: 'stop' | 'skip';
  /** Continues where this was taken. */
  readonly state?: LoaderState;
}

/** An endless stream of batches. */
export interface Loader {
  /** The next batch; the one after it is read meanwhile. Not to be called again before it has answered. */
  next(): Promise<Batch>;
  /** Where the batch after the last one given out begins. */
  state(): LoaderState;
}

const VERSION = 2;

/**
 * A stream of rows that depends on the shards, their weights and the seed alone.
 *
 * Each row's source is drawn by weight; each source is gone through in a new order every epoch. The size of a batch cuts
 * the stream and does not change it, so all who read with one seed see the same rows in the same order.
 * @throws DataError if the shards differ in length or boundaries, or `state` belongs to another seed or other shards.
 */
export function createLoader({shards, sequences, seed, damaged = 'stop', state}: LoaderOptions): Loader {
  checkAlike(shards);
  if (state) checkState(state, shards, seed);
  const rng = state ? restoreRng(state.rng) : createRng(seed, 'data mixture');
  const masked = shards.some(({shard}) => shard.columns.includes('mask'));
  const walks = shards.map((shard, i) => createWalk(shard, {masked, seed, damaged}, state?.sources[i]));
  const choose = chooser(shards.map(({weight}) => weight));
  const stand = (): LoaderState => ({
    version: VERSION,
    seed,
    rng: rng.state(),
    sources: walks.map((walk) => walk.state()),
  });
  const read = async (): Promise<Reading> => {
    const sources = Array.from({length: sequences}, () => choose(rng.uniform()));
    const reads = sources.flatMap((source) => walks[source]?.next() ?? []);
    const after = stand(); // before the rows are there: the walks have moved on
    const found = await Promise.all(reads);
    const faults = found.flatMap((one) => one.faults);
    const rows = found.map(({row}) => row);
    return {batch: {...joinRows(found.map(({values}) => values)), sources, rows, damaged: faults}, after};
  };
  return readAhead(read, stand());
}

/** A batch, and where the loader stands after it. */
interface Reading {
  readonly batch: Batch;
  readonly after: LoaderState;
}

/** Reads one batch ahead. What goes wrong with it is thrown when it is asked for, and where we stand counts what was given out. */
function readAhead(read: () => Promise<Reading>, start: LoaderState): Loader {
  let position = start;
  let ahead: Promise<Reading> | null = null;
  return {
    next: async () => {
      const reading = ahead === null ? read() : ahead;
      ahead = null;
      const {batch, after} = await reading;
      position = after;
      ahead = read();
      ahead.catch(() => undefined); // not lost: whoever asks for it awaits the same promise
      return batch;
    },
    state: () => position,
  };
}

/** One source gone through row by row. */
interface Walk {
  /** Moves on at once and reads the row it stood on. */
  next(): Promise<FoundRow>;
  state(): SourceState;
}

/** A row with its place, and what was wrong with those that it stands in for. */
interface FoundRow {
  readonly row: number;
  readonly values: ShardRows;
  readonly faults: readonly string[];
}

interface WalkOptions extends Required<Pick<LoaderOptions, 'seed' | 'damaged'>> {
  /** Whether rows without a mask stand beside masked ones. */
  readonly masked: boolean;
}

function createWalk({name, shard}: WeightedShard, {masked, seed, damaged}: WalkOptions, state?: SourceState): Walk {
  const {rows} = shard;
  let {epoch, cursor} = state ?? {epoch: 0, cursor: 0};
  let order = orderOf(name, rows, seed, epoch);
  return {
    next: () => {
      if (cursor === rows) {
        epoch++;
        cursor = 0;
        order = orderOf(name, rows, seed, epoch);
      }
      const place = cursor++;
      return damaged === 'stop' ? readRow(shard, order(place), masked) : readNext(shard, order, place, masked);
    },
    state: () => ({name, rows, epoch, cursor}),
  };
}

/** A row; beside others with a mask it gets one that leaves nothing out. */
async function readRow(shard: TokenShard, row: number, masked: boolean): Promise<FoundRow> {
  const read = await shard.readRows(row, row + 1);
  const isBare = masked && !read.mask;
  return {row, values: isBare ? {...read, mask: new Int32Array(read.tokens.length).fill(1)} : read, faults: []};
}

/** Damaged rows in a row after which a shard is given up: more than a torn record batch of short rows holds. */
const MOST_DAMAGED = 4096;

/** The first row from a place of an order on, around its end, that can be read. @throws DataError if there is none near. */
async function readNext(shard: TokenShard, order: Permutation, place: number, masked: boolean): Promise<FoundRow> {
  const faults: string[] = [];
  for (let i = 0; ; i++) {
    try {
      return {...(await readRow(shard, order((place + i) % shard.rows), masked)), faults};
    } catch (error) {
      if (!(error instanceof DataError) || i + 1 >= Math.min(shard.rows, MOST_DAMAGED)) throw error;
      faults.push(error.message);
    }
  }
}

/** The order of a source's rows in one epoch. */
function orderOf(name: string, rows: number, seed: number, epoch: number): Permutation {
  return createPermutation(rows, seed, `data order of ${name}, epoch ${epoch}`);
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
  const boundaries = columns.includes('segments') ? 'kept' : 'ignored';
  return `rows of ${metadata.sequenceLength} with document boundaries ${boundaries}`;
}

function checkState(state: LoaderState, shards: readonly WeightedShard[], seed: number): void {
  if (state.version !== VERSION) {
    throw new DataError(`The saved data position is of version ${state.version}, this downcycle reads ${VERSION}.`, {
      hint: 'Resume with the downcycle that began the run, or begin it again: rows now come in another order.',
    });
  }
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
