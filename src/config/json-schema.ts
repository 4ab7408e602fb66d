import {z} from 'zod';
import {configSchema} from './schema.js';

/** What is read here of a JSON Schema; others of its keywords are for editors. */
export interface JsonSchema {
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly propertyNames?: JsonSchema;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly items?: JsonSchema | readonly JsonSchema[];
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

/** One step into a config: a key of a section or an index of a list. */
export type PathStep = string | number;

/** Stands for the name a person gives, as in `arms.<name>.topK`. */
export const ANY_NAME = '<name>';

/** The JSON Schema of a config file, for editors. Draft 7, which they all read. */
export function configJsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, {io: 'input', target: 'draft-7'}) as JsonSchema;
}

/** The keys a section of a config may have. Of alternatives those count that `config` is meant to be. */
export function keysAt(root: JsonSchema, path: readonly PathStep[], config: unknown): string[] {
  let schemas = [root];
  let value = config;
  for (const step of path) {
    schemas = fitting(schemas, value).flatMap((schema) => below(schema, step));
    value = valueAt(value, step);
  }
  return [...new Set(fitting(schemas, value).flatMap(namesOf))];
}

/** The keys that a section names, or whose names it lists. */
function namesOf({properties = {}, propertyNames}: JsonSchema): string[] {
  return [...Object.keys(properties), ...(propertyNames?.enum ?? []).map(String)];
}

/** Every place of a config, written `train.optimizer.lr`, where `key` may stand. */
export function homesOf(key: string, schema: JsonSchema, at: readonly string[] = []): string[] {
  const homes = alternatives(schema).flatMap(({properties = {}, additionalProperties}) => {
    const here = Object.hasOwn(properties, key) ? [[...at, key].join('.')] : [];
    const deeper = Object.entries(properties).flatMap(([name, child]) => homesOf(key, child, [...at, name]));
    const named = typeof additionalProperties === 'object' ? homesOf(key, additionalProperties, [...at, ANY_NAME]) : [];
    return [...here, ...deeper, ...named];
  });
  return [...new Set(homes)];
}

/** The words that a key of an arm may have, whatever its method. */
export function wordsOf(key: string, schema: JsonSchema): string[] {
  const arms = schema.properties?.arms?.additionalProperties;
  const values = typeof arms === 'object' ? alternatives(arms).flatMap(({properties}) => properties?.[key] ?? []) : [];
  const words = values.flatMap((value) => [...(value.enum ?? []), value.const]);
  return [...new Set(words)].filter((word) => typeof word === 'string');
}

/** What stands at one step of a value; undefined if nothing does. */
export function valueAt(value: unknown, step: PathStep): unknown {
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return undefined;
  return (value as Readonly<Record<PathStep, unknown>>)[step];
}

function alternatives(schema: JsonSchema): JsonSchema[] {
  const choices = schema.anyOf ?? schema.oneOf;
  return choices ? choices.flatMap(alternatives) : [schema];
}

/** The alternatives that have the most constants in common with `value`, and contradict none of its own; else all. */
function fitting(schemas: readonly JsonSchema[], value: unknown): JsonSchema[] {
  const scored = schemas.flatMap(alternatives).map((schema) => ({schema, score: sharedConstants(schema, value)}));
  const best = Math.max(...scored.map(({score}) => score));
  return scored.filter(({score}) => score === best).map(({schema}) => schema);
}

/** How many constants of a schema `value` has; minus infinity if it has another value for one. */
function sharedConstants({properties = {}}: JsonSchema, value: unknown): number {
  return Object.entries(properties).reduce((sum, [key, {const: wanted}]) => {
    const found = valueAt(value, key);
    if (wanted === undefined || found === undefined) return sum;
    return found === wanted ? sum + 1 : Number.NEGATIVE_INFINITY;
  }, 0);
}

function below({properties, additionalProperties, items}: JsonSchema, step: PathStep): JsonSchema[] {
  if (typeof step === 'number') return 'map' in (items ?? []) ? [] : [items as JsonSchema];
  const child = properties && Object.hasOwn(properties, step) ? properties[step] : additionalProperties;
  return typeof child === 'object' ? [child] : [];
}
