import {readdirSync, statSync} from 'node:fs';
import {resolve} from 'node:path';

/** What was built starts in half the time of what tsx compiles, and is taken if it is of the sources as they are. */
const BUILT = isBuilt();

/** Options of Node to run {@link modulePath} with. */
export const NODE_OPTIONS: readonly string[] = BUILT ? [] : ['--import', import.meta.resolve('tsx')];

/** The command line of downcycle. */
export const DOWNCYCLE: readonly string[] = [process.execPath, ...NODE_OPTIONS, modulePath('cli/main')];

/** Where a module of the product is, for processes of their own. @param name as `train/run`. */
export function modulePath(name: string): string {
  return resolve(BUILT ? `dist/${name}.js` : `src/${name}.ts`);
}

function isBuilt(): boolean {
  const built = statSync('dist/.source-hash', {throwIfNoEntry: false})?.mtimeMs ?? 0;
  const sources = ['', ...readdirSync('src', {recursive: true, encoding: 'utf8'})].map((name) => resolve('src', name));
  return sources.every((path) => statSync(path).mtimeMs < built); // a folder counts: a file may have gone from it
}
