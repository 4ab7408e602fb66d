import {readFile} from 'node:fs/promises';
import type {Domain} from '../domain.js';

const PARTS = {noun: 'noun', verb: 'verb', adj: 'adjective', adv: 'adverb'} as const;
/** Neighbours in WordNet are near in meaning; this many make a document of one small field. */
const ENTRIES_PER_DOCUMENT = 20;

/** WordNet glosses and examples as dictionary entries. */
export const dictionary: Domain = {
  name: 'dictionary',
  about: `WordNet 3.0 entries, ${ENTRIES_PER_DOCUMENT} neighbouring entries a document`,
  packages: [{from: 'debian', name: 'wordnet-base', version: '1:3.0-37'}],
  licence: 'WordNet 3.0 licence',
  notice: ([root]) => readFile(`${root}/usr/share/doc/wordnet-base/copyright`, 'utf8'),
  documents: async ([root]) => {
    const parts = Object.entries(PARTS).map(async ([file, part]) =>
      groups(entries(await readFile(`${root}/usr/share/wordnet/data.${file}`, 'latin1'), part)),
    );
    return (await Promise.all(parts)).flat();
  },
};

/**
 * Entries `words (part): gloss` out of a WordNet data file.
 *
 * A line is `offset file type count(hex) word id word id ... | gloss` (man page wndb); the licence at the top is indented.
 */
export function entries(data: string, part: string): string[] {
  return data
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => {
      const [, , , count = '0', ...rest] = line.split(' ');
      const gloss = line.slice(line.indexOf(' | ') + 3);
      const words = rest.slice(0, 2 * Number.parseInt(count, 16)).filter((_, i) => i % 2 === 0);
      return `${words.map(spell).join(', ')} (${part}): ${gloss.trim()}`;
    });
}

/** `living_thing` as it is written; adjectives carry a marker of position such as `(a)`. */
function spell(word: string): string {
  return word.replaceAll('_', ' ').replace(/\((a|p|ip)\)$/, '');
}

function groups(list: readonly string[]): string[] {
  const numGroups = Math.ceil(list.length / ENTRIES_PER_DOCUMENT);
  return Array.from({length: numGroups}, (_, i) =>
    list.slice(i * ENTRIES_PER_DOCUMENT, (i + 1) * ENTRIES_PER_DOCUMENT).join('\n'),
  );
}
