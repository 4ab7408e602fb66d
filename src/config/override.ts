import {parse} from 'yaml';
import {UsageError} from '../util/errors.js';
import {type PathStep, valueAt} from './json-schema.js';
import {entries} from './phrase.js';
import {renderPath} from './problem.js';

/** One `--set path=value`, or another flag that gives a key. */
export interface Override {
  /** As it was typed: `--set train.steps=200`. */
  readonly typed: string;
  readonly path: readonly PathStep[];
  readonly value: unknown;
}

const KEY = /^([^.[\]]+|\[\d+\])/;

/**
 * Reads `train.steps=200`, `data.sources[0].weight=2`, `train.schedule={kind: constant}`: the value is YAML.
 *
 * @throws UsageError if it has no `=`, or path or value cannot be read.
 */
export function parseOverride(text: string): Override {
  const equals = text.indexOf('=');
  const typed = `--set ${text}`;
  if (equals < 1) throw new UsageError(`${typed}: expected path=value.`, {hint: 'For example: --set train.steps=200'});
  return {typed, path: parsePath(typed, text.slice(0, equals)), value: parseValue(typed, text.slice(equals + 1))};
}

/**
 * A copy of a config in which the overrides hold; later ones win.
 *
 * @throws UsageError if one goes into what is not a section, or beyond the end of a list.
 */
export function applyOverrides(config: unknown, overrides: readonly Override[]): unknown {
  const copy: unknown = structuredClone(config);
  for (const override of overrides) apply(copy, override);
  return copy;
}

function apply(config: unknown, {typed, path, value}: Override): void {
  let parent = config;
  for (const [depth, step] of path.entries()) {
    const at = renderPath(path.slice(0, depth));
    refuseForeign(parent, step, `${typed}: ${at || 'the file'}`);
    const isLast = depth === path.length - 1;
    if (isLast || valueAt(parent, step) === undefined || valueAt(parent, step) === null)
      assign(parent, step, isLast ? value : {});
    parent = valueAt(parent, step);
  }
}

function refuseForeign(parent: unknown, step: PathStep, where: string): void {
  if (typeof step === 'number') {
    if (!Array.isArray(parent)) throw new UsageError(`${where} is not a list; it has no entry [${step}].`);
    if (step < parent.length) return;
    throw new UsageError(`${where} has ${entries(parent.length)}; the first is [0], there is no [${step}].`);
  }
  if (typeof parent === 'object' && parent !== null && !Array.isArray(parent)) return;
  const hint = Array.isArray(parent) ? 'Name an entry of the list by its number, the first is [0].' : undefined;
  throw new UsageError(`${where} is not a section; it has no key ${step}.`, hint === undefined ? {} : {hint});
}

/** Defined, not assigned: `__proto__` is a key like any other, and an unknown one. */
function assign(parent: unknown, step: PathStep, value: unknown): void {
  const property = {value, enumerable: true, writable: true, configurable: true};
  if (typeof parent === 'object' && parent !== null) Object.defineProperty(parent, step, property);
}

function parsePath(typed: string, written: string): PathStep[] {
  const path: PathStep[] = [];
  for (let rest = written; rest; ) {
    const key = KEY.exec(rest)?.[0];
    if (key === undefined) throw new UsageError(`${typed}: ${written} is no path such as data.sources[0].weight.`);
    path.push(key.startsWith('[') ? Number(key.slice(1, -1)) : key.trim());
    rest = rest.slice(key.length).replace(/^\.(?=.)/, '');
  }
  return path;
}

/** The value of a flag, read as YAML. @throws UsageError if it is none. */
export function parseValue(typed: string, value: string): unknown {
  try {
    return parse(value, {prettyErrors: false}) as unknown;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${typed}: the value is not YAML: ${reason}.`, {cause: error});
  }
}
