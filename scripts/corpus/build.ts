// Rebuilds data/*.txt and data/licenses/*.txt from the published packages: npx tsx scripts/corpus/build.ts [--check]
import {mkdir, mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join as joinPath} from 'node:path';
import {parseArgs} from 'node:util';
import {writeFileAtomic} from '../../src/util/atomic.js';
import type {Domain} from './domain.js';
import {c, javascript} from './extract/code.js';
import {dictionary} from './extract/dictionary.js';
import {geography} from './extract/geography.js';
import {pythonManual} from './extract/python-manual.js';
import {scripture} from './extract/scripture.js';
import {fetchPackage} from './package.js';
import {hideAddresses, isText, join, normalise, spread} from './text.js';

const DOMAINS: readonly Domain[] = [scripture, geography, dictionary, pythonManual, javascript, c];
/** Six domains stay under 5 MB, and no file weighs on a clone. */
const BYTES_PER_DOMAIN = 800_000;
const DATA = joinPath(import.meta.dirname, '../../data');

interface Built {
  readonly text: string;
  readonly notice: string;
  readonly numDocuments: number;
}

async function main(): Promise<void> {
  const {values} = parseArgs({options: {check: {type: 'boolean', default: false}}});
  const work = await mkdtemp(joinPath(tmpdir(), 'corpus-'));
  try {
    await mkdir(joinPath(DATA, 'licenses'), {recursive: true});
    for (const domain of DOMAINS) {
      const built = await build(domain, work);
      await (values.check ? compare : write)(domain, built);
      console.log(tableRow(domain, built));
    }
  } finally {
    await rm(work, {recursive: true, force: true});
  }
}

async function build(domain: Domain, work: string): Promise<Built> {
  const folders: string[] = [];
  for (const source of domain.packages) folders.push(await fetchPackage(source, work));
  const clean = (await domain.documents(folders)).map((text) => hideAddresses(normalise(text))).filter(isText);
  const documents = spread(clean, BYTES_PER_DOMAIN);
  return {text: join(documents), notice: await domain.notice(folders), numDocuments: documents.length};
}

async function write({name}: Domain, {text, notice}: Built): Promise<void> {
  await writeFileAtomic(joinPath(DATA, `${name}.txt`), text);
  await writeFileAtomic(joinPath(DATA, 'licenses', `${name}.txt`), notice);
}

async function compare({name}: Domain, {text, notice}: Built): Promise<void> {
  if ((await readFile(joinPath(DATA, `${name}.txt`), 'utf8')) !== text) process.exitCode = 1;
  if ((await readFile(joinPath(DATA, 'licenses', `${name}.txt`), 'utf8')) !== notice) process.exitCode = 1;
  if (process.exitCode) throw new Error(`data/${name}.txt or its licence is not what the packages give; rebuild it.`);
}

/** A row of the table in data/README.md. */
function tableRow({name, about, packages, licence}: Domain, {text, numDocuments}: Built): string {
  const sources = packages.map((source) => `${source.from} \`${source.name}\` ${source.version}`).join(', ');
  return `| ${name}.txt | ${about} | ${sources} | ${licence} | ${Buffer.byteLength(text)} | ${numDocuments} |`;
}

await main();
