import {readFile} from 'node:fs/promises';
import type {Domain} from '../domain.js';
import {filesUnder} from '../files.js';
import {normalise, pieces} from '../text.js';

const SOURCES = 'usr/share/doc/python3.11/html/_sources';
/** Chapters of the manual in running prose with examples; the rest is history and C interfaces. */
const BOOKS = ['tutorial', 'reference', 'library', 'howto', 'faq'];

/** The Python manual in its own markup. */
export const pythonManual: Domain = {
  name: 'python-manual',
  about: 'Python 3.11 manual in reStructuredText, about 3,000 characters a document',
  packages: [{from: 'debian', name: 'python3.11-doc', version: '3.11.2-6+deb12u9'}],
  licence: 'PSF-2.0',
  notice: async ([root]) => {
    const copyright = await readFile(`${root}/${SOURCES}/copyright.rst.txt`, 'utf8');
    const license = await readFile(`${root}/${SOURCES}/license.rst.txt`, 'utf8');
    return `${copyright}\n${license.split('\n.. _OtherLicenses:')[0]?.trimEnd()}\n`;
  },
  documents: async ([root]) => {
    const books = BOOKS.map((book) => filesUnder(`${root}/${SOURCES}/${book}`, (path) => path.endsWith('.rst.txt')));
    const files = (await Promise.all(books)).flat();
    const texts = await Promise.all(files.map((path) => readFile(path, 'utf8')));
    return texts.flatMap((text) => pieces(normalise(withoutMarginalia(text))));
  },
};

/** Drops what a reader of the manual never sees: comments, labels, index entries and authors' names, with their blocks. */
export function withoutMarginalia(rst: string): string {
  return rst
    .replace(/^\.\. (?!\S+::|\[)[^\n]*\n(?:[ \t]+\S[^\n]*\n)*/gm, '')
    .replace(
      /^( *)\.\. (?:sectionauthor|moduleauthor|index|highlight)::[^\n]*\n(?:\1 +\S[^\n]*\n|\s*\n(?=\1 +\w+: ))*/gm,
      '',
    );
}
