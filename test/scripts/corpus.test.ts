import {readdir, readFile, stat} from 'node:fs/promises';
import {join as joinPath} from 'node:path';
import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {entries} from '../../scripts/corpus/extract/dictionary.js';
import {countryNames, describeSection} from '../../scripts/corpus/extract/geography.js';
import {withoutMarginalia} from '../../scripts/corpus/extract/python-manual.js';
import {chapters} from '../../scripts/corpus/extract/scripture.js';
import {hideAddresses, isText, join, normalise, pieces, split, spread} from '../../scripts/corpus/text.js';

const DATA = joinPath(import.meta.dirname, '../../data');
const FILES = (await readdir(DATA)).filter((name) => name.endsWith('.txt'));

describe('text', () => {
  it('normalises what is only typography', () => {
    expect(normalise('\ufeff\n\na\u00a0b \t\r\nc\f\r\n\n\n\ne\u0301  \n')).toBe('a b\nc\n\n\u00e9');
  });

  it('hides hosts and mail addresses and keeps paths', () => {
    expect(hideAddresses('ask jo.doe@mail.test.net or https://www.site.io/a/b, or site.org')).toBe(
      'ask someone@example.org or https://example.org/a/b, or example.org',
    );
  });

  it('takes prose, and neither tables of numbers nor scraps nor what was badly decoded', () => {
    const prose = 'word '.repeat(60);
    expect([prose, '1234 ab '.repeat(60), 'word', `${prose}\ufffd`].map(isText)).toEqual([true, false, false, false]);
  });

  it('cuts into pieces that end at blank lines and together are the text', () => {
    const text = 'line\n\n'.repeat(2000);
    expect(pieces(text).join('')).toBe(text);
    expect(pieces(text).length).toBeGreaterThan(3);
    expect(pieces(text).every((piece) => piece.endsWith('\n\n'))).toBe(true);
  });

  it('picks different documents in their order, within the bytes given', () => {
    const document = fc.string({minLength: 1});
    fc.assert(
      fc.property(fc.array(document), fc.nat(200), (documents, bytes) => {
        const picked = spread(documents, bytes);
        const places = picked.map((text) => documents.indexOf(text));
        expect(places).toEqual([...new Set(places)].sort((p, q) => p - q));
        expect(Buffer.byteLength(join(picked))).toBeLessThanOrEqual(Math.max(bytes, 1));
      }),
    );
  });

  it('splits what it joined', () => {
    expect(split(join(['a\n\nb', 'c']))).toEqual(['a\n\nb', 'c']);
  });
});

describe('extractors', () => {
  it('make a document of each chapter', () => {
    const print =
      '\nRuth 4\n\n  21 And Salmon begat Boaz,\n  22 And Obed begat Jesse.\n\n1 Samuel 1\n\n  1 Now there was\n';
    expect(chapters(print)).toEqual([
      'Ruth 4\n\n21 And Salmon begat Boaz,\n22 And Obed begat Jesse.',
      '1 Samuel 1\n\n1 Now there was',
    ]);
  });

  it('print a section of the Factbook as one line a topic', () => {
    const topics = {Area: {total: {text: '5 sq km'}, note: {text: null}}, Climate: {text: 'mild ++ wet'}};
    expect(describeSection('Utopia: Geography', topics)).toBe(
      'Utopia: Geography\n\nArea: total: 5 sq km\nClimate: mild; wet',
    );
    expect(countryNames('### Europe\n`al` Albania\n`an` Andorra\n')).toEqual(
      new Map([
        ['al', 'Albania'],
        ['an', 'Andorra'],
      ]),
    );
  });

  it('print a WordNet line as a dictionary entry', () => {
    const line = '04258 03 a 02 living_thing 0 alive(p) 0 002 @ 04475 n 0000 | a living entity; "x | y"  ';
    expect(entries(`  1 This software\n${line}\n`, 'adjective')).toEqual([
      'living thing, alive (adjective): a living entity; "x | y"',
    ]);
  });

  it('drop comments, labels, index entries and authors from the manual, and nothing else', () => {
    const rst =
      '.. _label:\n\n.. index::\n   single: a\n   pair: b; c\n\nText.\n\n.. comment\n   on\n.. sectionauthor:: A\n.. note::\n   Kept.\n\n.. [1] Kept.\n';
    expect(withoutMarginalia(rst)).toBe('\n\nText.\n\n.. note::\n   Kept.\n\n.. [1] Kept.\n');
  });
});

describe.each(FILES)('data/%s', (name) => {
  it('is at most 1 MB and has its licence beside it', async () => {
    expect((await stat(joinPath(DATA, name))).size).toBeLessThanOrEqual(1_000_000);
    expect((await stat(joinPath(DATA, 'licenses', name))).size).toBeGreaterThan(100);
  });

  it('holds clean documents only, none twice', async () => {
    const documents = split(await readFile(joinPath(DATA, name), 'utf8'));
    expect(
      documents.filter(
        (text) => !isText(text) || hideAddresses(normalise(text)) !== text || /[\f\r]|\n\n\n/.test(text),
      ),
    ).toEqual([]);
    expect(new Set(documents).size).toBe(documents.length);
  });

  it('is described in data/README.md with its size and number of documents', async () => {
    const text = await readFile(joinPath(DATA, name), 'utf8');
    const row = (await readFile(joinPath(DATA, 'README.md'), 'utf8'))
      .split('\n')
      .find((line) => line.startsWith(`| ${name} |`));
    expect(row?.endsWith(`| ${Buffer.byteLength(text)} | ${split(text).length} |`)).toBe(true);
  });
});

it('data/ stays under 5 MB', async () => {
  const sizes = await Promise.all(FILES.map(async (name) => (await stat(joinPath(DATA, name))).size));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(5_000_000);
});
