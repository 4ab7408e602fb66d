import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {parquetWriteBuffer} from 'hyparquet-writer';
import {describe, expect, it} from 'vitest';
import type {SourcePath} from '../../src/data/path.js';
import {readDocuments} from '../../src/data/source.js';
import {DataError} from '../../src/util/errors.js';
import {collect, tempFolder} from './support.js';

async function documents(path: SourcePath, field?: string): Promise<string[]> {
  return collect(readDocuments({name: 's', path, field}));
}

async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(await tempFolder(), name);
  await writeFile(path, content);
  return path;
}

function parquet(column: string, data: unknown[], rowGroupSize = 2): Uint8Array {
  const columnData = [
    {name: 'id', data: data.map((_, i) => i)},
    {name: column, data},
  ];
  return new Uint8Array(parquetWriteBuffer({columnData, rowGroupSize}));
}

async function expectRefused(reading: Promise<unknown>, message: RegExp | string): Promise<void> {
  await expect(reading).rejects.toThrow(DataError);
  await expect(reading).rejects.toThrow(message);
}

describe('a text file', () => {
  it('is parted at two or more blank lines and at form feeds, not at one blank line', async () => {
    const path = await file('a.txt', '\n\none\n\nstill one\n\n \ntwo\n\n\n\n\nthree\fthree b\n\f\nfour\n');
    expect(await documents(path)).toEqual(['one\n\nstill one', 'two', 'three', 'three b', 'four']);
  });

  it('reads Windows line ends like others', async () => {
    expect(await documents(await file('a.txt', 'one\r\nmore\r\n\r\n\r\ntwo\r\n'))).toEqual(['one\nmore', 'two']);
  });

  it('keeps indentation and trailing spaces', async () => {
    expect(await documents(await file('a.txt', '  if x:\n    y  \n'))).toEqual(['  if x:\n    y  ']);
  });

  it('of one long document is cut at line ends and loses no line', async () => {
    const lines = Array.from({length: 30_000}, (_, i) => `${i} ${'é'.repeat(60)}`);
    const found = await documents(await file('a.txt', lines.join('\n')));
    expect(found.length).toBe(2);
    expect(found.join('\n')).toBe(lines.join('\n'));
  });

  it('that is not UTF-8 is refused', async () => {
    await expectRefused(documents(await file('a.txt', Uint8Array.of(0x61, 0xff, 0x62))), /a\.txt is not UTF-8 text/);
  });

  it('may end anywhere but inside a character', async () => {
    await expectRefused(documents(await file('a.txt', Uint8Array.of(0x61, 0xc3))), 'is not UTF-8 text');
  });
});

describe('a JSON Lines file', () => {
  it('gives the field `text` of each line, whatever else is there', async () => {
    const path = await file(
      'a.jsonl',
      '{"id": 1, "text": "one\\n\\n\\nstill one"}\n\n{"text": "two"}\r\n{"text": " "}',
    );
    expect(await documents(path)).toEqual(['one\n\n\nstill one', 'two']);
  });

  it('joins prompt and target, with a space where there is no white space', async () => {
    const rows = [
      ['Q: 1+1\nA:', '2'],
      ['Say ', 'hi'],
      ['Say', '\nho'],
    ].map(([prompt, target]) => ({prompt, target}));
    const path = await file('a.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'));
    expect(await documents(path)).toEqual(['Q: 1+1\nA: 2', 'Say hi', 'Say\nho']);
  });

  it('gives the field that is asked for', async () => {
    expect(await documents(await file('a.jsonl', '{"text": "no", "body": "yes"}'), 'body')).toEqual(['yes']);
  });

  it('may hold U+2028 inside a string', async () => {
    expect(await documents(await file('a.jsonl', '{"text": "a\u2028b"}\n'))).toEqual(['a\u2028b']);
  });

  it.each([
    ['{"text": "ok"}\n{"text": ', /a\.jsonl:2: not JSON/],
    ['{"text": "ok"}\n\n["text"]', /a\.jsonl:3: not an object/],
    ['{"body": "x", "id": 1}', /a\.jsonl:1: no field `text`; fields: body, id\./],
    ['{"text": 7}', /a\.jsonl:1: field `text` is no string/],
    ['{"prompt": "x", "target": null}', /a\.jsonl:1: field `target` is no string/],
  ])('is refused at its first bad line: %s', async (content, message) => {
    await expectRefused(documents(await file('a.jsonl', content)), message);
  });
});

describe('a parquet file', () => {
  it('gives the column `text` of every row group', async () => {
    const texts = ['one', 'two', 'three', 'four', 'five'];
    expect(await documents(await file('a.parquet', parquet('text', texts)))).toEqual(texts);
  });

  it('gives the column that is asked for', async () => {
    expect(await documents(await file('a.parquet', parquet('body', ['x', 'y'])), 'body')).toEqual(['x', 'y']);
  });

  it('without the column is refused, naming those it has', async () => {
    const path = await file('a.parquet', parquet('body', ['x']));
    await expectRefused(documents(path), /a\.parquet has no column `text`; its columns: id, body\./);
  });

  it('with a row that is no string is refused, naming the row', async () => {
    const path = await file('a.parquet', parquet('text', ['a', 'b', null, 'd']));
    await expectRefused(documents(path), /a\.parquet: row 2: field `text` is no string/);
  });

  it('that is none, or cut short, is refused', async () => {
    const bytes = parquet('text', ['one', 'two']);
    await expectRefused(documents(await file('a.parquet', 'Once upon a time')), 'cannot be read as parquet');
    await expectRefused(documents(await file('a.parquet', bytes.slice(0, -20))), 'cannot be read as parquet');
  });
});

describe('a source', () => {
  it('that is a folder gives its files by name, with subfolders, and passes over other files', async () => {
    const folder = await tempFolder();
    await mkdir(join(folder, 'b'));
    await writeFile(join(folder, 'c.txt'), 'third');
    await writeFile(join(folder, 'b', 'x.parquet'), parquet('text', ['second']));
    await writeFile(join(folder, 'a.jsonl'), '{"text": "first"}');
    await writeFile(join(folder, 'README.md'), 'not this');
    expect(await documents(folder)).toEqual(['first', 'second', 'third']);
  });

  async function shelf(): Promise<string> {
    const folder = await tempFolder();
    await mkdir(join(folder, 'b', 'deep'), {recursive: true});
    await mkdir(join(folder, '[odd]'));
    await writeFile(join(folder, 'c.txt'), 'c');
    await writeFile(join(folder, 'a.txt'), 'a');
    await writeFile(join(folder, 'b', 'deep', 'x.txt'), 'x');
    await writeFile(join(folder, 'b', 'y.jsonl'), '{"text": "y"}');
    await writeFile(join(folder, '[odd]', 'z.txt'), 'z');
    await writeFile(join(folder, 'README.md'), 'not this');
    return folder;
  }

  it.each([
    ['*.txt', ['a', 'c']],
    ['**/*.{txt,jsonl}', ['z', 'a', 'x', 'y', 'c']],
    ['b/**', ['x', 'y']],
    ['[odd]', ['z']],
    ['{a.txt,README.md}', ['a']],
    [
      ['c.txt', 'a.txt'],
      ['a', 'c'],
    ],
    [
      ['b', 'a.txt', '*.txt'],
      ['a', 'x', 'y', 'c'],
    ],
    [
      ['a.txt', './b/../a.txt', 'b/../c.txt', 'c.txt'],
      ['a', 'c'],
    ],
  ])('may be a glob or a list of paths, read in the order of names, each once: %o', async (path, found) => {
    const folder = await shelf();
    const within = (entry: string): string => join(folder, entry);
    expect(await documents(typeof path === 'string' ? within(path) : path.map(within))).toEqual(found);
  });

  it('may be a glob from the working directory', async () => {
    expect(await documents('test/fixtures/train/script*.txt')).toEqual(
      await documents('test/fixtures/train/scripture.txt'),
    );
  });

  it('that is a glob of nothing is refused, naming it', async () => {
    const folder = await shelf();
    const reading = documents([folder, `${folder}/**/*.parquet`]);
    await expectRefused(reading, `${folder}/**/*.parquet matches no file.`);
    await expect(reading).rejects.toMatchObject({
      hint: 'Correct the path; ** stands for any folders, * for any name.',
    });
  });

  it('whose glob matches only files of other kinds is refused', async () => {
    await expectRefused(documents(`${await shelf()}/*.md`), '*.md holds no file that is understood');
  });

  it('with a shard among its files is refused', async () => {
    const reading = documents([await file('a.arrow', 'x'), await file('a.txt', 'x')]);
    await expectRefused(reading, 'a.arrow: files of this kind are not understood');
    await expect(reading).rejects.toMatchObject({hint: 'A shard is the only path of its source.'});
  });

  it.each(['', '\n\n \n'])('without text is refused: %o', async (content) => {
    await expectRefused(documents(await file('a.txt', content)), /Source s: .*a\.txt holds no text/);
  });

  it('that does not exist is refused', async () => {
    await expectRefused(documents(join(await tempFolder(), 'none.txt')), /none\.txt does not exist/);
  });

  it('of an unknown kind is refused, naming those that are known', async () => {
    const reading = documents(await file('a.docx', 'x'));
    await expectRefused(reading, /a\.docx: files of this kind are not understood/);
    await expect(reading).rejects.toMatchObject({hint: 'Understood are .txt, .jsonl, .parquet.'});
  });

  it('that is a folder without such files is refused', async () => {
    await expectRefused(documents(await tempFolder()), 'holds no file that is understood');
  });
});
