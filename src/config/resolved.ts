import {createHash} from 'node:crypto';
import {stringify} from 'yaml';
import type {Config} from './schema.js';

/** The whole config as YAML, defaults included, for a run folder; reading it gives the same config. */
export function resolvedYaml(config: Config): string {
  return `# The config of this run as it was resolved: defaults and overrides filled in.\n${stringify(config, {lineWidth: 0})}`;
}

/** SHA-256 of a config, hexadecimal: the same for configs that say the same, in whatever order and however written. */
export function configHash(config: Config): string {
  return createHash('sha256').update(JSON.stringify(config, sortKeys)).digest('hex');
}

function sortKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
