import type {z} from 'zod';
import {nearest} from '../util/nearest.js';
import {ANY_NAME, configJsonSchema, homesOf, keysAt, type PathStep, valueAt} from './json-schema.js';
import {expectation, mismatch, phrase} from './phrase.js';
import {configSchema} from './schema.js';

/** One thing that is wrong with a config. */
export interface Problem {
  readonly path: readonly PathStep[];
  /** Whether the value is wrong, or its key should not be there. */
  readonly part: 'value' | 'key';
  /** In words, without the path and without a full stop. */
  readonly message: string;
}

type Issue = z.core.$ZodIssue;

/** A config that holds, or all that is wrong with it. */
export type Checked = {readonly config: z.output<typeof configSchema>} | {readonly problems: readonly Problem[]};

/** Checks a parsed file against the schema. */
export function checkConfig(value: unknown): Checked {
  const result = configSchema.safeParse(value, {error: phrase, reportInput: true});
  if (result.success) return {config: result.data};
  return {problems: result.error.issues.flatMap((issue) => problemsOf(issue, [], value))};
}

/** `data.sources[0].path`. */
export function renderPath(path: readonly PathStep[]): string {
  return path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : text ? `${text}.${step}` : step),
    '',
  );
}

function problemsOf(issue: Issue, above: readonly PathStep[], config: unknown): Problem[] {
  const path = [...above, ...(issue.path as PathStep[])];
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({path: [...path, key], part: 'key', message: unknownKey(key, path, config)}));
    case 'invalid_key':
      return [{path, part: 'key', message: issue.issues[0]?.message ?? issue.message}];
    case 'invalid_union':
      return issue.errors.length === 0 ? [{path, part: 'value', message: issue.message}] : union(issue, path, config);
    default:
      return [{path, part: 'value', message: issue.message}];
  }
}

/** A union fits in no way: said is what keeps it from fitting in the way it comes nearest to. */
function union(issue: z.core.$ZodIssueInvalidUnion, path: readonly PathStep[], config: unknown): Problem[] {
  const expected = issue.errors.map(([only]) => (only?.path.length === 0 ? expectation(only) : null));
  if (expected.every((words) => words !== null)) {
    return [{path, part: 'value', message: mismatch([...new Set(expected)].join(' or '), issue.input)}];
  }
  const costs = issue.errors.map((issues) => issues.reduce((sum, one) => sum + cost(one), 0));
  const nearestWay = issue.errors[costs.indexOf(Math.min(...costs))] ?? [];
  return nearestWay.flatMap((one) => problemsOf(one, path, config));
}

/** How far an issue is from what was meant: another kind of thing, another method, keys of another method, a wrong value. */
function cost(issue: Issue): number {
  if (issue.path.length === 0 && expectation(issue) !== null) return 20;
  if (issue.code === 'unrecognized_keys') return 3 * issue.keys.length;
  if (issue.code === 'invalid_union' && issue.discriminator !== undefined)
    return valueAt(issue.input, issue.discriminator) === undefined ? 6 : 3;
  return issue.input === undefined ? 2 : 1;
}

function unknownKey(key: string, path: readonly PathStep[], config: unknown): string {
  const schema = configJsonSchema();
  const known = keysAt(schema, path, config);
  const meant = nearest(key, known);
  if (meant !== null) return `unknown key; did you mean ${meant}?`;
  // A key of another method has its home at the same place, where it is wrong.
  const homes = homesOf(key, schema).filter((home) => !isAt(home, path));
  if (homes.length === 1) return `unknown key; did you mean ${homes[0]}?`;
  return `unknown key; known here are ${known.join(', ')}`;
}

/** Whether a place such as `arms.<name>.topK` lies in the section at `path`. */
function isAt(home: string, path: readonly PathStep[]): boolean {
  const section = home.split('.').slice(0, -1);
  return section.length === path.length && section.every((step, i) => step === ANY_NAME || step === path[i]);
}
