import {parse} from 'yaml';
import type {PathStep} from './json-schema.js';
import {renderPath} from './problem.js';

/** What differs between two resolved configs, given as YAML: `train.steps (400, now 200)`. Empty if one is no YAML. */
export function configDifferences(before: string, now: string): string[] {
  const [old, current] = [flatten(parseOrNull(before)), flatten(parseOrNull(now))];
  if (old.size <= 1 || current.size <= 1) return [];
  const paths = [...new Set([...old.keys(), ...current.keys()])];
  const changed = paths.filter((path) => old.get(path) !== current.get(path));
  return changed.map((path) => `${path} (${old.get(path) ?? 'not there'}, now ${current.get(path) ?? 'not there'})`);
}

/** Every value of a tree by its path. */
function flatten(value: unknown, path: readonly PathStep[] = []): Map<string, string> {
  if (typeof value !== 'object' || value === null) return new Map([[renderPath(path), String(value)]]);
  const step = (key: string): PathStep => (Array.isArray(value) ? Number(key) : key);
  return new Map(Object.entries(value).flatMap(([key, part]) => [...flatten(part, [...path, step(key)])]));
}

function parseOrNull(yaml: string): unknown {
  try {
    return parse(yaml, {logLevel: 'silent'}) as unknown;
  } catch {
    return null;
  }
}
