import {describe, expect, it} from 'vitest';
import {z} from 'zod';
import {dataSchema} from '../../src/data/options.js';

const source = {name: 'a', path: 'a.txt'};

describe('the data section', () => {
  it('needs nothing but sources', () => {
    expect(dataSchema.parse({sources: [source]})).toEqual({
      sequenceLength: 512,
      sources: [{...source, weight: 1, format: 'auto', licence: 'unknown'}],
      validation: {share: 0.05},
      boundaries: 'ignore',
      special: 'recognised',
      damaged: 'stop',
    });
  });

  it('takes lengths with a unit', () => {
    expect(dataSchema.parse({sources: [source], sequenceLength: '2k'}).sequenceLength).toBe(2000);
  });

  it.each([
    ['no source', {sources: []}, 'sources'],
    ['an unknown key', {sources: [source], shuffle: true}, 'shuffle'],
    ['an unknown key of a source', {sources: [{...source, column: 'x'}]}, 'column'],
    ['two sources of one name', {sources: [source, source]}, 'two sources have the same name'],
    ['a name that is no file name', {sources: [{...source, name: '../a'}]}, 'file name'],
    ['a weight of zero', {sources: [{...source, weight: 0}]}, 'weight'],
    ['a share above a half', {sources: [source], validation: {share: 0.6}}, 'share'],
    ['a length of zero', {sources: [source], sequenceLength: 0}, 'sequenceLength'],
  ])('refuses %s', (_, section, message) => {
    const {error} = dataSchema.safeParse(section);
    expect(z.prettifyError(error ?? {issues: []})).toContain(message);
  });

  it('describes every field in its JSON schema', () => {
    const undescribed: string[] = [];
    const visit = (path: string, schema: JsonSchema): void => {
      if (!schema.description) undescribed.push(path);
      for (const [key, child] of Object.entries(schema.properties ?? {})) visit(`${path}.${key}`, child);
      if (schema.items) visit(`${path}[]`, schema.items);
    };
    visit('data', z.toJSONSchema(dataSchema, {io: 'input'}) as JsonSchema);
    expect(undescribed).toEqual([]);
  });
});

interface JsonSchema {
  readonly description?: string;
  readonly properties?: Record<string, JsonSchema>;
  readonly items?: JsonSchema;
}
