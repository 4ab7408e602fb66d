import {readdirSync, statSync} from 'node:fs';
import {resolve} from 'node:path';

/**
 * The command line of downcycle: as it was built, which starts in half the time, if that is of the sources as they are;
 * else by tsx.
 */
export const DOWNCYCLE: readonly string[] = [
  process.execPath,
  ...(isBuilt() ? [resolve('dist/cli/main.js')] : ['--import', import.meta.resolve('tsx'), resolve('src/cli/main.ts')]),
];

function isBuilt(): boolean {
  const built = statSync('dist/.source-hash', {throwIfNoEntry: false})?.mtimeMs ?? 0;
  const sources = ['', ...readdirSync('src', {recursive: true, encoding: 'utf8'})].map((name) => resolve('src', name));
  return sources.every((path) => statSync(path).mtimeMs < built); // a folder counts: a file may have gone from it
}
