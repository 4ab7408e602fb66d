import {readFile} from 'node:fs/promises';
import {basename} from 'node:path';
import type {Domain} from '../domain.js';
import {filesUnder} from '../files.js';
import type {Package} from '../package.js';
import {normalise, pieces} from '../text.js';

/** A longer line was not written by hand: minified code, tables of Unicode ranges, encoded data. */
const LONGEST_LINE = 160;

/** The public headers inside sqlite3.c carry the web manual in their comments. */
const WEB_PAGE =
  /<\/?(?:[dou]l|[dl][itd]|[bip]|t[drh]|h\d|blockquote|pre|tt|table|sup|sub|em|br)>|<a href|\[\[|\bCAPI3REF\b/i;

const LIBRARIES: readonly Package[] = [
  {from: 'npm', name: 'lodash', version: '4.18.1'},
  {from: 'npm', name: 'jquery', version: '4.0.0'},
  {from: 'npm', name: 'immutable', version: '5.2.1'},
  {from: 'npm', name: 'acorn', version: '8.19.0'},
  {from: 'npm', name: 'moment', version: '2.31.0'},
];
const NOTICES = ['LICENSE', 'LICENSE.txt', 'LICENSE', 'LICENSE', 'LICENSE'];

/** Five JavaScript libraries. Each ships its code more than once; one form of each is taken. */
export const javascript: Domain = {
  name: 'javascript',
  about: 'JavaScript of five libraries, a file or about 3,000 characters a document',
  packages: LIBRARIES,
  licence: 'MIT (five notices)',
  notice: async (folders) => {
    const notices = await Promise.all(folders.map((folder, i) => readFile(`${folder}/${NOTICES[i]}`, 'utf8')));
    return notices.map((notice, i) => `${LIBRARIES[i]?.name} ${LIBRARIES[i]?.version}\n\n${notice}`).join('\n---\n\n');
  },
  documents: async ([lodash, jquery, immutable, acorn, moment]) => {
    const modules = await filesUnder(`${lodash}`, isLodashModule);
    const others = await filesUnder(`${jquery}/src`, (path) => path.endsWith('.js'));
    const bundles = [`${immutable}/dist/immutable.es.js`, `${acorn}/dist/acorn.mjs`];
    const dates = await filesUnder(`${moment}/src/lib`, (path) => path.endsWith('.js'));
    return codeOf([...modules, ...others, ...bundles, ...dates]);
  },
};

/** The SQLite library, one file of C. */
export const c: Domain = {
  name: 'c',
  about: 'C of the SQLite library, about 3,000 characters a document',
  packages: [{from: 'npm', name: 'better-sqlite3', version: '12.11.1'}],
  licence: 'public domain',
  notice: async ([root]) => {
    const header = await readFile(`${root}/deps/sqlite3/sqlite3.h`, 'utf8');
    return header.slice(0, header.indexOf('*/') + 3);
  },
  documents: async ([root]) => {
    const code = await codeOf([`${root}/deps/sqlite3/sqlite3.c`]);
    return code.filter((piece) => !WEB_PAGE.test(piece));
  },
};

/** lodash.js and core.js repeat the modules; fp/ wraps them. */
function isLodashModule(path: string): boolean {
  return !/\/fp\/|\.min\.js$/.test(path) && path.endsWith('.js') && !['lodash.js', 'core.js'].includes(basename(path));
}

async function codeOf(paths: readonly string[]): Promise<string[]> {
  const texts = await Promise.all(paths.map((path) => readFile(path, 'utf8')));
  return texts.flatMap((text) => pieces(normalise(text))).filter(isHandWritten);
}

function isHandWritten(code: string): boolean {
  return code.split('\n').every((line) => line.length <= LONGEST_LINE);
}
