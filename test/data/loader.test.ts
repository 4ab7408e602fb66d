import {join} from 'node:path';
import fc from 'fast-check';
import {describe, expect, it, onTestFinished} from 'vitest';
import {evaluationBatches} from '../../src/data/evaluation.js';
import {type Batch, createLoader, type Loader, type LoaderState, type WeightedShard} from '../../src/data/loader.js';
import {openTokenShard} from '../../src/format/token-shard.js';
import type {ShardRows} from '../../src/format/token-shard-rows.js';
import {DataError} from '../../src/util/errors.js';
import {collect, countingRows, countingShard, tempFolder, writeShard} from './support.js';

/** Two sources, of 7 and of 40 rows; a row is known by its first token over 1000. */
async function twoShards(weights = [1, 3]): Promise<WeightedShard[]> {
  const folder = await tempFolder();
  const small = await countingShard(join(folder, 'small.arrow'), 7);
  const large = await countingShard(join(folder, 'large.arrow'), 40);
  return [
    {name: 'small', shard: small, weight: weights[0] ?? 1},
    {name: 'large', shard: large, weight: weights[1] ?? 1},
  ];
}

async function take(loader: Loader, batches: number): Promise<Batch[]> {
  const taken: Batch[] = [];
  for (let i = 0; i < batches; i++) taken.push(await loader.next());
  return taken;
}

/** The stream of rows as [source, row]. */
function rowsOf(batches: readonly Batch[]): [number, number][] {
  return batches.flatMap(({tokens, sources}) =>
    sources.map((source, i): [number, number] => [source, (tokens[5 * i] ?? 0) / 1000]),
  );
}

describe('a batch', () => {
  it('has B rows of S + 1 tokens, each whole and from the source it names', async () => {
    const batch = await createLoader({shards: await twoShards(), sequences: 6, seed: 1}).next();
    expect([batch.tokens.length, batch.sources.length]).toEqual([30, 6]);
    for (let i = 0; i < 6; i++) {
      const [first = -1, ...others] = batch.tokens.subarray(5 * i, 5 * i + 5);
      expect(others).toEqual([1, 2, 3, 4].map((j) => first + j));
      expect(first / 1000).toBeLessThan(batch.sources[i] === 0 ? 7 : 40);
    }
  });

  it('has segments where the shards have', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(3, 5, true), 4);
    const shard = await openTokenShard(path);
    onTestFinished(() => shard.close());
    const batch = await createLoader({shards: [{name: 'x', shard, weight: 1}], sequences: 2, seed: 1}).next();
    expect([...(batch.segments ?? [])]).toEqual([0, 0, 1, 1, 1, 0, 0, 1, 1, 1]);
  });
});

describe('the stream', () => {
  it('is the same for the same seed, and another for another', async () => {
    const shards = await twoShards();
    const stream = async (seed: number) => rowsOf(await take(createLoader({shards, sequences: 4, seed}), 20));
    expect(await stream(5)).toEqual(await stream(5));
    expect(await stream(6)).not.toEqual(await stream(5));
  });

  it('does not depend on the size of a batch', async () => {
    const shards = await twoShards();
    const bySix = rowsOf(await take(createLoader({shards, sequences: 6, seed: 5}), 10));
    const byFour = rowsOf(await take(createLoader({shards, sequences: 4, seed: 5}), 15));
    expect(byFour).toEqual(bySix);
  });

  it('goes through each source once an epoch, in another order each time', async () => {
    const rows = rowsOf(await take(createLoader({shards: await twoShards(), sequences: 8, seed: 5}), 60));
    for (const [source, length] of [
      [0, 7],
      [1, 40],
    ] as const) {
      const visited = rows.filter(([from]) => from === source).map(([, row]) => row);
      const epochs = [0, 1, 2].map((epoch) => visited.slice(epoch * length, (epoch + 1) * length));
      for (const epoch of epochs) expect(epoch.toSorted((a, b) => a - b)).toEqual(Array.from({length}, (_, i) => i));
      expect(epochs[1]).not.toEqual(epochs[0]);
      expect(epochs[2]).not.toEqual(epochs[1]);
    }
  });

  it('mixes the sources by weight', async () => {
    const rows = rowsOf(await take(createLoader({shards: await twoShards([1, 3]), sequences: 100, seed: 5}), 40));
    const share = rows.filter(([source]) => source === 1).length / rows.length;
    const error = Math.sqrt((0.75 * 0.25) / rows.length);
    expect(Math.abs(share - 0.75)).toBeLessThan(4 * error);
  });

  it('keeps the order within a source when weights change', async () => {
    const ordered = async (weights: number[]): Promise<number[]> => {
      const loader = createLoader({shards: await twoShards(weights), sequences: 10, seed: 5});
      return rowsOf(await take(loader, 30))
        .filter(([source]) => source === 1)
        .map(([, row]) => row)
        .slice(0, 60);
    };
    expect(await ordered([1, 1])).toEqual(await ordered([1, 9]));
  });
});

describe('a restored loader', () => {
  it('continues with exactly the batches that would have come', async () => {
    const shards = await twoShards();
    await fc.assert(
      fc.asyncProperty(fc.nat(40), fc.integer({min: 1, max: 9}), fc.nat(1000), async (before, sequences, seed) => {
        const loader = createLoader({shards, sequences, seed});
        await take(loader, before);
        const state = JSON.parse(JSON.stringify(loader.state())) as LoaderState;
        const restored = createLoader({shards, sequences, seed, state});
        expect(await take(restored, 20)).toEqual(await take(loader, 20));
        expect(restored.state()).toEqual(loader.state());
      }),
      {numRuns: 25},
    );
  });

  it('stands before a batch that is being read, and after those given out', async () => {
    const shards = await twoShards();
    const loader = createLoader({shards, sequences: 4, seed: 3});
    await loader.next();
    const pending = loader.next();
    const state = loader.state();
    const batch = await pending;
    expect(await createLoader({shards, sequences: 4, seed: 3, state}).next()).toEqual(batch);
    expect(await createLoader({shards, sequences: 4, seed: 3, state: loader.state()}).next()).toEqual(
      await loader.next(),
    );
  });

  it('counts epochs', async () => {
    const [shard] = (await twoShards()) as [WeightedShard];
    const loader = createLoader({shards: [shard], sequences: 5, seed: 3});
    await take(loader, 3);
    expect(loader.state().sources).toEqual([{name: 'small', rows: 7, epoch: 2, cursor: 1}]);
  });

  it('refuses a state of another order of rows', async () => {
    const shards = await twoShards();
    const state = {...createLoader({shards, sequences: 4, seed: 3}).state(), version: 1};
    const restore = () => createLoader({shards, sequences: 4, seed: 3, state});
    expect(restore).toThrow(DataError);
    expect(restore).toThrow('The saved data position is of version 1, this downcycle reads 2.');
  });

  it('refuses a state of another seed', async () => {
    const shards = await twoShards();
    const state = createLoader({shards, sequences: 4, seed: 3}).state();
    const restore = () => createLoader({shards, sequences: 4, seed: 4, state});
    expect(restore).toThrow(DataError);
    expect(restore).toThrow('The saved data position has seed 3, the run has 4.');
  });

  it('refuses a state of other sources', async () => {
    const shards = await twoShards();
    const state = createLoader({shards, sequences: 4, seed: 3}).state();
    const restore = () => createLoader({shards: shards.slice(1), sequences: 4, seed: 3, state});
    expect(restore).toThrow(DataError);
    expect(restore).toThrow('is of small (7 rows), large (40 rows); the sources are large (40 rows).');
  });
});

describe('masked and other shards', () => {
  it('go together: what has no mask is learnt whole', async () => {
    const folder = await tempFolder();
    const plain = await countingShard(join(folder, 'a.arrow'), 7);
    const rows = countingRows(7, 5).map((row) => ({...row, mask: Int32Array.of(0, 0, 1, 0, 1)}));
    await writeShard(join(folder, 'b.arrow'), rows, 4);
    const masked = await openTokenShard(join(folder, 'b.arrow'));
    onTestFinished(() => masked.close());
    const shards = [plain, masked].map((shard, i) => ({name: `${i}`, shard, weight: 1}));
    const {mask, sources} = await createLoader({shards, sequences: 20, seed: 1}).next();
    expect(new Set(sources).size).toBe(2);
    expect([...(mask ?? [])]).toEqual(sources.flatMap((source) => (source === 0 ? [1, 1, 1, 1, 1] : [0, 0, 1, 0, 1])));
  });
});

describe('a batch read ahead', () => {
  /** A shard of which reads are counted, and those of `broken` rows fail. */
  async function watchedShard(broken: ReadonlySet<number> = new Set()) {
    const shard = await countingShard(join(await tempFolder(), 'x.arrow'), 40);
    const reads: number[] = [];
    const readRows = async (begin: number, end: number) => {
      reads.push(begin);
      if (broken.has(begin)) throw new DataError(`row ${begin} is broken`);
      return shard.readRows(begin, end);
    };
    return {reads, source: {name: 'x', weight: 1, shard: {...shard, readRows}}};
  }

  it('is read while the last one is used, and no further', async () => {
    const {reads, source} = await watchedShard();
    const loader = createLoader({shards: [source], sequences: 4, seed: 3});
    expect(reads.length).toBe(0);
    await loader.next();
    expect(reads.length).toBe(8);
    await loader.next();
    expect(reads.length).toBe(12);
  });

  it('fails when it is asked for, not before, and where we stand stays', async () => {
    const order = (await watchedShard()).source;
    const rows = rowsOf(await take(createLoader({shards: [order], sequences: 4, seed: 3}), 3)).map(([, row]) => row);
    const {source} = await watchedShard(new Set(rows.slice(8, 9)));
    const loader = createLoader({shards: [source], sequences: 4, seed: 3});
    await take(loader, 2);
    const state = loader.state();
    await new Promise((resolve) => setTimeout(resolve, 5));
    await expect(loader.next()).rejects.toThrow(`row ${rows[8]} is broken`);
    expect(loader.state()).toEqual(state);
  });
});

describe('createLoader refuses', () => {
  it('no shards', () => {
    expect(() => createLoader({shards: [], sequences: 4, seed: 3})).toThrow(DataError);
  });

  it('shards of different lengths, naming both', async () => {
    const folder = await tempFolder();
    const a = {name: 'a', shard: await countingShard(join(folder, 'a.arrow'), 3, 4), weight: 1};
    const b = {name: 'b', shard: await countingShard(join(folder, 'b.arrow'), 3, 8), weight: 1};
    const create = () => createLoader({shards: [a, b], sequences: 4, seed: 3});
    expect(create).toThrow(DataError);
    expect(create).toThrow(
      /a\.arrow has rows of 4 with .* ignored, .*b\.arrow has rows of 8 with .* ignored; they cannot be mixed/,
    );
  });
});

describe('evaluation batches', () => {
  async function rows(available: number, sequences: number, maxRows: number): Promise<number[][]> {
    const shard = await countingShard(join(await tempFolder(), 'x.arrow'), available);
    const batches = await collect(evaluationBatches(shard, sequences, maxRows));
    const isCounted = ({mask}: ShardRows, i: number): boolean => i % 5 === 0 && mask?.[i] !== 0;
    return batches.map((batch) => [...batch.tokens].filter((_, i) => isCounted(batch, i)).map((id) => id / 1000));
  }

  it('spread evenly over the shard', async () => {
    expect(await rows(12, 2, 6)).toEqual([
      [0, 2],
      [4, 6],
      [8, 10],
    ]);
  });

  it('are all of one size, the last one filled up with nothing to predict', async () => {
    const shard = await countingShard(join(await tempFolder(), 'x.arrow'), 11);
    const batches = await collect(evaluationBatches(shard, 4, 100));
    expect(batches.map(({tokens}) => tokens.length)).toEqual([20, 20, 20]);
    expect([...batches[2]!.mask!]).toEqual([...new Array<number>(15).fill(1), ...new Array<number>(5).fill(0)]);
    expect(batches[0]!.mask).toBeUndefined();
  });

  it('hold the same rows whatever their size', async () => {
    const whole = (await rows(11, 1, 7)).flat();
    for (const sequences of [2, 3, 5, 20]) expect((await rows(11, sequences, 7)).flat()).toEqual(whole);
  });

  it('hold all rows of a shard that has fewer than one batch', async () => {
    expect(await rows(3, 8, 100)).toEqual([[0, 1, 2]]);
  });

  it('never hold a row twice', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({min: 1, max: 20}),
        fc.integer({min: 1, max: 6}),
        fc.integer({min: 1, max: 25}),
        async (...args) => {
          const all = (await rows(...args)).flat();
          expect(new Set(all).size).toBe(all.length);
        },
      ),
      {numRuns: 15},
    );
  });
});

describe('damaged rows', () => {
  /** A source of 12 rows, some of which cannot be read. */
  async function source(isDamaged: (row: number) => boolean): Promise<WeightedShard> {
    const shard = await countingShard(join(await tempFolder(), 'a.arrow'), 12);
    const readRows = async (begin: number, end: number) => {
      if (isDamaged(begin)) throw new DataError(`row ${begin} is damaged`);
      return shard.readRows(begin, end);
    };
    return {name: 'a', shard: {...shard, readRows}, weight: 1};
  }
  const isBad = (row: number): boolean => [3, 4, 9].includes(row);

  it('end the stream unless the policy says otherwise', async () => {
    const loader = createLoader({shards: [await source(isBad)], sequences: 12, seed: 5});
    await expect(loader.next()).rejects.toThrow(/^row \d is damaged$/);
  });

  it('that are skipped are named, and the next rows of their epoch stand in for them', async () => {
    const loader = createLoader({shards: [await source(isBad)], sequences: 12, seed: 5, damaged: 'skip'});
    const whole = createLoader({shards: [await source(() => false)], sequences: 12, seed: 5});
    const [batch, plain] = [await loader.next(), rowsOf([await whole.next()]).map(([, row]) => row)];
    const standIn = (place: number): number => {
      const row = plain[place % 12]!;
      return isBad(row) ? standIn(place + 1) : row;
    };
    expect(rowsOf([batch]).map(([, row]) => row)).toEqual(plain.map((_, place) => standIn(place)));
    for (const row of [3, 4, 9]) expect(batch.damaged).toContain(`row ${row} is damaged`);
    expect((await whole.next()).damaged).toEqual([]);
  });

  it('are the same ones wherever a run is resumed', async () => {
    const shards = [await source(isBad)];
    const options = {shards, sequences: 5, seed: 5, damaged: 'skip'} as const;
    const whole = createLoader(options);
    const batches = await take(whole, 8);
    for (const begin of [1, 4, 7]) {
      const first = createLoader(options);
      await take(first, begin);
      const rest = await take(createLoader({...options, state: first.state()}), 8 - begin);
      expect(rest).toEqual(batches.slice(begin));
    }
  });

  it('do not hide that no row of a source can be read, nor another kind of error', async () => {
    const none = createLoader({shards: [await source(() => true)], sequences: 1, seed: 5, damaged: 'skip'});
    await expect(none.next()).rejects.toThrow(DataError);
    const one = await source(() => false);
    const readRows = (): Promise<never> => Promise.reject(new TypeError('ours'));
    const faulty = [{...one, shard: {...one.shard, readRows}}];
    await expect(createLoader({shards: faulty, sequences: 1, seed: 5, damaged: 'skip'}).next()).rejects.toThrow('ours');
  });
});
