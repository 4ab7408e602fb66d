import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {describe, expect, test} from 'vitest';
import {configJsonSchema} from '../../src/config/json-schema.js';
import {loadConfig} from '../../src/config/load.js';
import {findMissing} from '../../src/data/path.js';

const CONFIGS = readdirSync('configs').filter((name) => name.endsWith('.yaml'));

describe('configs/', () => {
  test.each(CONFIGS)('%s is a config without mistakes', async (name) => {
    const {config} = await loadConfig(join('configs', name));
    expect(config.name).toBe(name.replace('.yaml', ''));
  });

  test.each(CONFIGS)('%s names text that is in the repository', async (name) => {
    const {config} = await loadConfig(join('configs', name));
    for (const {path} of config.data.sources) expect(await findMissing(path)).toBeNull();
  });

  test.each(CONFIGS)('%s tells editors where its schema is', (name) => {
    const [first] = readFileSync(join('configs', name), 'utf8').split('\n');
    expect(first).toBe('# yaml-language-server: $schema=./schema.json');
  });

  test('schema.json is what scripts/gen-schema.ts writes', () => {
    expect(JSON.parse(readFileSync('configs/schema.json', 'utf8'))).toEqual(configJsonSchema());
  });

  test('every key of a config is described', () => {
    expect(undescribed(configJsonSchema())).toEqual([]);
  });
});

interface Described {
  readonly description?: string;
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, Described>>;
  readonly additionalProperties?: Described | boolean;
  readonly items?: Described | readonly Described[];
  readonly anyOf?: readonly Described[];
  readonly oneOf?: readonly Described[];
}

/** Paths of the keys whose schema has no description. */
function undescribed(schema: Described, at = ''): string[] {
  const {properties = {}, additionalProperties, items, anyOf = [], oneOf = []} = schema;
  const lists = Array.isArray(items) ? [] : [items as Described | undefined];
  const parts = [additionalProperties, ...lists, ...anyOf, ...oneOf].filter((part) => typeof part === 'object');
  return [
    ...Object.entries(properties).flatMap(([key, child]) => [
      ...(child.description ? [] : [`${at}.${key}`]),
      ...undescribed(child, `${at}.${key}`),
    ]),
    ...parts.flatMap((part) => undescribed(part, at)),
  ];
}
