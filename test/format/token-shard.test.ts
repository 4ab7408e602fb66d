import {readFileSync} from 'node:fs';
import {readdir, readFile, rm, stat, truncate, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {
  Field,
  FixedSizeList,
  Int32,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  tableFromIPC,
} from 'apache-arrow';
import {describe, expect, it, onTestFinished} from 'vitest';
import {openTokenShard} from '../../src/format/token-shard.js';
import type {ShardExpectation} from '../../src/format/token-shard-check.js';
import {createTokenShardWriter} from '../../src/format/token-shard-writer.js';
import {DataError, EnvironmentError} from '../../src/util/errors.js';
import {countingRows, countingShard, SHA, tempFolder, writeShard} from '../data/support.js';

const GOOD = {
  formatVersion: '1',
  tokenizerSha256: SHA,
  sequenceLength: '4',
  source: 's',
  licence: 'MIT',
  documents: '3',
  rows: '2',
  rowsPerBatch: '2',
};

/** A file as another program might write it: two rows of five values in one column. */
async function foreignShard(metadata: Record<string, string>, {name = 'tokens', width = 5} = {}): Promise<string> {
  const path = join(await tempFolder(), 'x.arrow');
  const type = new FixedSizeList(width, new Field('item', new Int32()));
  const schema = new Schema([new Field(name, type)], new Map(Object.entries(metadata)));
  const child = makeData({type: new Int32(), data: Int32Array.from({length: 2 * width}, (_, i) => i)});
  const children = [makeData({type, length: 2, child})];
  const batch = new RecordBatch(schema, makeData({type: new Struct(schema.fields), length: 2, children}));
  await writeFile(path, await RecordBatchFileWriter.writeAll([batch]).toUint8Array());
  return path;
}

async function expectRefused(path: string, message: RegExp | string, expected?: ShardExpectation): Promise<void> {
  const opening = openTokenShard(path, expected);
  await expect(opening).rejects.toThrow(DataError);
  await expect(opening).rejects.toThrow(message);
  await expect(opening).rejects.toThrow(path);
}

describe('a token shard', () => {
  it('gives back any range of rows, over record batches', async () => {
    const width = 1025;
    const path = join(await tempFolder(), 'x.arrow');
    const rows = countingRows(100, width);
    await writeShard(path, rows, width - 1);
    const shard = await openTokenShard(path);
    expect(shard.metadata.rowsPerBatch).toBeLessThan(40);
    for (const [begin, end] of [
      [0, 1],
      [99, 100],
      [20, 90],
      [0, 100],
    ] as const) {
      const wanted = rows.slice(begin, end).flatMap(({tokens}) => [...tokens]);
      expect([...(await shard.readRows(begin, end)).tokens]).toEqual(wanted);
    }
    await shard.close();
  });

  it('answers reads in flight at once like reads one by one', async () => {
    const shard = await countingShard(join(await tempFolder(), 'x.arrow'), 30, 8191);
    const order = Array.from({length: 60}, (_, i) => (i * 17) % 30);
    const rows = await Promise.all(order.map((row) => shard.readRows(row, row + 1)));
    expect(rows.map(({tokens}) => tokens[0])).toEqual(order.map((row) => 1000 * row));
  });

  it('keeps segments and mask', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    const rows = countingRows(3, 5, true).map((row) => ({...row, mask: row.tokens.map((id) => id % 2)}));
    await writeShard(path, rows, 4);
    const shard = await openTokenShard(path, {segments: true});
    const read = await shard.readRows(1, 3);
    await shard.close();
    expect(shard.columns).toEqual(['tokens', 'segments', 'mask']);
    expect([...(read.segments ?? [])]).toEqual([0, 0, 1, 1, 1, 0, 0, 1, 1, 1]);
    expect([...(read.mask ?? [])]).toEqual([0, 1, 0, 1, 0, 0, 1, 0, 1, 0]);
  });

  it('is a plain Arrow file with the metadata in its schema', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(2, 5), 4);
    const table = tableFromIPC(readFileSync(path));
    expect(String(table.schema)).toBe('Schema<{ 0: tokens: FixedSizeList[5]<Int32> }>');
    expect(Object.fromEntries(table.schema.metadata)).toEqual({...GOOD, rowsPerBatch: String(Math.floor(2 ** 15 / 5))});
    const second: unknown = table.getChild('tokens')?.get(1);
    expect([...(second as Iterable<number>)]).toEqual([1000, 1001, 1002, 1003, 1004]);
  });

  it('made by another program with this metadata is read', async () => {
    const shard = await openTokenShard(await foreignShard(GOOD));
    expect([...(await shard.readRows(1, 2)).tokens]).toEqual([5, 6, 7, 8, 9]);
    await shard.close();
  });
});

describe('a shard writer', () => {
  it('shows no file before it is finished, and nothing after an abort', async () => {
    const folder = await tempFolder();
    const description = {tokenizerSha256: SHA, sequenceLength: 4, source: 's', licence: 'MIT'};
    const writer = await createTokenShardWriter(join(folder, 'x.arrow'), description);
    for (const row of countingRows(20, 5)) await writer.append(row);
    expect(await readdir(folder)).not.toContain('x.arrow');
    await writer.abort();
    expect(await readdir(folder)).toEqual([]);
  });

  it('refuses a path that exists', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeFile(path, 'mine');
    await expect(writeShard(path, countingRows(1, 5), 4)).rejects.toThrow(EnvironmentError);
    expect(await readFile(path, 'utf8')).toBe('mine');
  });

  it('leaves nothing after a row that cannot be written', async () => {
    const folder = await tempFolder();
    await expect(writeShard(join(folder, 'x.arrow'), countingRows(2, 7), 4)).rejects.toThrow('expected 5');
    expect(await readdir(folder)).toEqual([]);
  });

  it('refuses to finish without a row, and leaves nothing', async () => {
    const folder = await tempFolder();
    const writing = writeShard(join(folder, 'x.arrow'), [], 4);
    await expect(writing).rejects.toThrow(
      '3 documents are less than one row of 5 tokens, the least a shard of s holds.',
    );
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('openTokenShard refuses', () => {
  it('a file that is not there', async () => {
    await expectRefused(join(await tempFolder(), 'x.arrow'), 'does not exist');
  });

  it.each([
    ['a text', 'Once upon a time'],
    ['an empty file', ''],
  ])('%s', async (_, text) => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeFile(path, text);
    await expectRefused(path, 'is no Arrow file');
  });

  it('a truncated file, wherever it ends', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(50, 5), 4);
    const {length} = await readFile(path);
    for (const size of [length - 1, length - 10, length - 200, 700, 8]) {
      await truncate(path, size);
      await expectRefused(path, 'is truncated');
    }
  });

  it('a footer of nonsense', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(2, 5), 4);
    const bytes = await readFile(path);
    bytes.fill(0xff, bytes.length - 10 - bytes.readInt32LE(bytes.length - 10), bytes.length - 10);
    await writeFile(path, bytes);
    await expectRefused(path, 'is damaged: its footer cannot be read');
  });

  it.each(Object.keys(GOOD))('metadata without %s', async (key) => {
    const path = await foreignShard(Object.fromEntries(Object.entries(GOOD).filter(([name]) => name !== key)));
    await expectRefused(path, `lacks the metadata \`${key}\``);
  });

  it.each([
    ['sequenceLength', 'many'],
    ['rows', '0'],
    ['tokenizerSha256', 'abc'],
  ])('metadata with a wrong %s', async (key, value) => {
    await expectRefused(await foreignShard({...GOOD, [key]: value}), `wrong metadata \`${key}\`: ${value}`);
  });

  it('a newer format version', async () => {
    await expectRefused(
      await foreignShard({...GOOD, formatVersion: '2'}),
      'format version 2; this downcycle reads up to 1',
    );
  });

  it('another first column', async () => {
    await expectRefused(await foreignShard(GOOD, {name: 'ids'}), 'no first column `tokens`; its columns: ids');
  });

  it('rows of another width than the metadata says', async () => {
    await expectRefused(await foreignShard(GOOD, {width: 7}), 'expected FixedSizeList<int32>[5]');
  });

  it('fewer record batches than rows', async () => {
    await expectRefused(await foreignShard({...GOOD, rows: '9'}), '1 record batches do not hold its 9 rows');
  });

  it('another sequence length', async () => {
    const message = 'is a shard of another sequence length: 4, asked for 128';
    await expectRefused(await foreignShard(GOOD), message, {sequenceLength: 128});
  });

  it('another tokenizer', async () => {
    const message = "was made with another tokenizer: SHA-256 abababababab..., the model's is 000000000000...";
    await expectRefused(await foreignShard(GOOD), message, {tokenizerSha256: '0'.repeat(64)});
  });

  it('boundaries that were not kept', async () => {
    await expectRefused(await foreignShard(GOOD), 'boundaries ignored, asked for kept', {segments: true});
  });
});

describe('an open shard', () => {
  it('that is cut gives the rows before the cut and names the first one after it', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    const shard = await countingShard(path, 20, 8191);
    await truncate(path, (await stat(path)).size / 2);
    expect((await shard.readRows(2, 3)).tokens[0]).toBe(2000);
    const reading = shard.readRows(11, 12);
    await expect(reading).rejects.toThrow(DataError);
    await expect(reading).rejects.toThrow(`${path} is damaged: row 11 lies beyond its end; it was cut`);
  });

  it('that is cut before a record batch names it', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    const shard = await countingShard(path, 20, 8191);
    await truncate(path, (await stat(path)).size / 2);
    const reading = shard.readRows(19, 20);
    await expect(reading).rejects.toThrow(DataError);
    await expect(reading).rejects.toThrow(`${path} is damaged: record batch 4 (from row 16) cannot be read.`);
  });

  it('that is removed, or replaced by a rename, can be read to its end', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    const shard = await countingShard(path, 20);
    await rm(path);
    expect((await shard.readRows(19, 20)).tokens[0]).toBe(19_000);
  });

  it('that is overwritten with nonsense names file and row', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(20, 8192), 8191);
    const shard = await openTokenShard(path, {vocabSize: 2 ** 20});
    onTestFinished(() => shard.close());
    const bytes = await readFile(path);
    await writeFile(path, bytes.fill(0xa5, 8 * 2 ** 15 + 9000, 8 * 2 ** 15 + 9004));
    await expect(shard.readRows(0, 20)).rejects.toThrow(/x\.arrow: row 8 holds token id -1515870811, the vocabulary/);
  });
});

describe('readRows refuses', () => {
  it('a token id outside the vocabulary, naming the row', async () => {
    const path = join(await tempFolder(), 'x.arrow');
    await writeShard(path, countingRows(3, 5), 4);
    const shard = await openTokenShard(path, {vocabSize: 2003});
    await expect(shard.readRows(0, 3)).rejects.toThrow(`${path}: row 2 holds token id 2003, the vocabulary has 2003.`);
    expect((await shard.readRows(1, 2)).tokens[0]).toBe(1000);
    await shard.close();
  });

  it('record batches that do not have the rows the metadata says', async () => {
    const shard = await openTokenShard(await foreignShard({...GOOD, rows: '4', rowsPerBatch: '4'}));
    await expect(shard.readRows(0, 1)).rejects.toThrow('record batch 0 (from row 0) has 2 rows, not 4');
    await shard.close();
  });
});
