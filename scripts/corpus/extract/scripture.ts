import {execFile} from 'node:child_process';
import {readFile} from 'node:fs/promises';
import {promisify} from 'node:util';
import type {Domain} from '../domain.js';

const MAX_OUTPUT = 16 * 1024 * 1024;

/** The King James Bible, a chapter a document. The text is packed in a format that only its own reader knows. */
export const scripture: Domain = {
  name: 'scripture',
  about: 'King James Bible, a chapter a document',
  packages: [
    {from: 'debian', name: 'bible-kjv-text', version: '4.38'},
    {from: 'debian', name: 'bible-kjv', version: '4.38'},
  ],
  licence: 'public domain',
  notice: ([text]) => readFile(`${text}/usr/share/doc/bible-kjv-text/copyright`, 'utf8'),
  documents: async ([text, reader]) => {
    const args = ['-p', `${text}/usr/lib`, '-l10000', 'genesis1:1-revelation22:21'];
    const {stdout} = await promisify(execFile)(`${reader}/usr/bin/bible`, args, {maxBuffer: MAX_OUTPUT});
    return chapters(stdout);
  },
};

/** Chapters out of the reader's print: a title line between blank lines, then one indented verse a line. */
export function chapters(print: string): string[] {
  return print
    .split(/\n(?=\S)/)
    .map((chapter) => chapter.replace(/^ +/gm, '').trim())
    .filter((chapter) => chapter !== '');
}
