import type {z} from 'zod';
import {nearest} from '../util/nearest.js';
import {valueAt} from './json-schema.js';

type RawIssue = Parameters<z.core.$ZodErrorMap>[0];

const TYPES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  object: 'a section of keys',
  record: 'a section of keys',
  array: 'a list',
  tuple: 'a list',
};

/** Longest quotation of a person's own text. */
const QUOTED = 40;

/** What is wrong with a value of a config, in words; a message written in the schema wins over it. */
export function phrase(issue: RawIssue): string | undefined {
  switch (issue.code) {
    case 'invalid_type':
    case 'invalid_value':
      return mismatch(expectation(issue) ?? '', issue.input, optionsOf(issue));
    case 'too_small':
      return tooSmall(issue.origin, Number(issue.minimum), issue.inclusive ?? false, issue.input);
    case 'too_big':
      return tooBig(issue.origin, Number(issue.maximum), issue.inclusive ?? false, issue.input);
    case 'invalid_union':
      if (issue.discriminator === undefined) return undefined;
      return mismatch(oneOf(optionsOf(issue)), valueAt(issue.input, issue.discriminator), optionsOf(issue));
    default:
      return undefined;
  }
}

/** `expected a number, found "many"`, with what was probably meant if it is one of `words`. */
export function mismatch(expected: string, found: unknown, words: readonly string[] = []): string {
  if (found === undefined) return `missing; expected ${expected}`;
  const meant = typeof found === 'string' ? nearest(found, words) : null;
  return `expected ${expected}, found ${describeValue(found)}${meant ? `; did you mean ${meant}?` : ''}`;
}

/** What an issue about type or value would have taken; null for issues about something else. */
export function expectation(issue: RawIssue | z.core.$ZodIssue): string | null {
  if (issue.code === 'invalid_type') return TYPES[issue.expected] ?? issue.expected;
  return issue.code === 'invalid_value' ? oneOf(issue.values.map(String)) : null;
}

function optionsOf(issue: RawIssue): string[] {
  if (issue.code === 'invalid_value') return issue.values.map(String);
  // Zod lists undefined where the key has a default.
  if (issue.code !== 'invalid_union' || !Array.isArray(issue.options)) return [];
  return issue.options.filter((option: unknown): option is string => typeof option === 'string');
}

function oneOf(words: readonly string[]): string {
  const [only] = words;
  return words.length === 1 && only !== undefined ? only : `one of ${words.join(', ')}`;
}

function tooSmall(origin: string, minimum: number, inclusive: boolean, found: unknown): string {
  if (origin === 'string') return 'must not be empty';
  if (origin === 'array') return `needs at least ${entries(minimum)}, has ${lengthOf(found)}`;
  return `must be ${inclusive ? 'at least' : 'more than'} ${minimum}, found ${describeValue(found)}`;
}

function tooBig(origin: string, maximum: number, inclusive: boolean, found: unknown): string {
  if (origin === 'array') return `takes at most ${entries(maximum)}, has ${lengthOf(found)}`;
  return `must be ${inclusive ? 'at most' : 'less than'} ${maximum}, found ${describeValue(found)}`;
}

/** `1 entry`, `2 entries`. */
export function entries(count: number): string {
  return count === 1 ? '1 entry' : `${count} entries`;
}

function lengthOf(value: unknown): number {
  return Array.isArray(value) ? value.length : 0;
}

function describeValue(value: unknown): string {
  if (value === null) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a section of keys';
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  if (typeof value !== 'string') return `a ${typeof value}`;
  return JSON.stringify(value.length > QUOTED ? `${value.slice(0, QUOTED)}…` : value);
}
