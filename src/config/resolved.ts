import {createHash} from 'node:crypto';
import {stringify} from 'yaml';
import type {Config} from './schema.js';

const HEAD = '# The config of this run as it was resolved: defaults and overrides filled in.\n';

/** The whole config as YAML, defaults included, for a run folder; reading it gives the same config. */
export function resolvedYaml(config: Config): string {
  return `${HEAD}${stringify(config, {lineWidth: 0})}`;
}

/** Whether a text is what {@link resolvedYaml} writes, and no person wrote it. */
export function isResolved(yaml: string): boolean {
  return yaml.startsWith(HEAD);
}

/** SHA-256 of a config, hexadecimal: the same for configs that say the same, in whatever order and however written. */
export function configHash(config: Config): string {
  return createHash('sha256').update(JSON.stringify(config, sortKeys)).digest('hex');
}

function sortKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
