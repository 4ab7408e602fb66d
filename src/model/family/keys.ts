import type {z} from 'zod';
import {ModelError} from '../../util/errors.js';
import type {ConfigRecord} from './definition.js';

/**
 * Reads the keys of a config, where null means absent.
 *
 * @throws ModelError naming the file, the first key that does not fit, and what was found there.
 */
export function parseKeys<Schema extends z.ZodType>(
  schema: Schema,
  config: ConfigRecord,
  file: string,
): z.output<Schema> {
  const keys = withoutNulls(config);
  const result = schema.safeParse(keys);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new ModelError(`${file}: ${describeIssue(issue, keys)}.`);
}

function describeIssue(issue: z.core.$ZodIssue | undefined, keys: unknown): string {
  if (!issue) return 'this config cannot be read';
  if (issue.code === 'unrecognized_keys') {
    return `${[...issue.path, issue.keys[0]].map(String).join('.')} is unknown`;
  }
  const found = issue.path.reduce(step, keys);
  const name = issue.path.map(String).join('.') || 'the config';
  return found === undefined
    ? `${name} is missing: ${issue.message}`
    : `${name} is ${JSON.stringify(found)}: ${issue.message}`;
}

function step(value: unknown, key: PropertyKey): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined;
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value !== 'object' || value === null) return value;
  const kept = Object.entries(value).filter(([, inner]) => inner !== null);
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutNulls(inner)]));
}
