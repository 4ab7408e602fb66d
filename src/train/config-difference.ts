import {parse} from 'yaml';

/** What differs between two resolved configs, given as YAML: `train.steps (400, now 200)`. Empty if one is no YAML. */
export function configDifferences(before: string, now: string): string[] {
  const [old, current] = [flatten(parseOrNull(before)), flatten(parseOrNull(now))];
  if (old.size <= 1 || current.size <= 1) return [];
  const paths = [...new Set([...old.keys(), ...current.keys()])];
  const changed = paths.filter((path) => old.get(path) !== current.get(path));
  return changed.map((path) => `${path} (${old.get(path) ?? 'not there'}, now ${current.get(path) ?? 'not there'})`);
}

/** Every value of a tree by its path. */
function flatten(value: unknown, path = ''): Map<string, string> {
  if (typeof value !== 'object' || value === null) return new Map([[path, String(value)]]);
  const below = (key: string): string => (Array.isArray(value) ? `${path}[${key}]` : path ? `${path}.${key}` : key);
  return new Map(Object.entries(value).flatMap(([key, part]) => [...flatten(part, below(key))]));
}

function parseOrNull(yaml: string): unknown {
  try {
    return parse(yaml, {logLevel: 'silent'}) as unknown;
  } catch {
    return null;
  }
}
