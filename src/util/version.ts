import {createRequire} from 'node:module';

/** Version of this package, from its package.json. */
export function packageVersion(): string {
  const found: unknown = createRequire(import.meta.url)('../../package.json');
  return typeof found === 'object' && found !== null && 'version' in found ? String(found.version) : 'unknown';
}
