import {DataError} from '../util/errors.js';

/**
 * The text of a record: its `field`; without one `text`, else `prompt` and `target` with a space between them unless
 * there is white space already.
 *
 * @throws DataError naming the place, what was looked for and which fields there are.
 */
export function textOf(where: string, record: unknown, field?: string): string {
  const fields = record !== null && typeof record === 'object' && !Array.isArray(record) ? record : null;
  if (!fields) throw new DataError(`${where}: not an object.`, {hint: 'Every record must be one object.'});
  const get = (name: string): unknown => (fields as Readonly<Record<string, unknown>>)[name];
  if (field !== undefined) return asText(where, field, get(field), fields);
  if ('text' in fields) return asText(where, 'text', fields.text, fields);
  if (!('prompt' in fields && 'target' in fields)) return asText(where, 'text', undefined, fields);
  return join(asText(where, 'prompt', fields.prompt, fields), asText(where, 'target', fields.target, fields));
}

function join(prompt: string, target: string): string {
  const isParted = /\s$/.test(prompt) || /^\s/.test(target);
  return `${prompt}${isParted ? '' : ' '}${target}`;
}

function asText(where: string, name: string, value: unknown, fields: object): string {
  if (typeof value === 'string') return value;
  const found = Object.keys(fields).join(', ') || 'none';
  const what = value === undefined ? `no field \`${name}\`` : `field \`${name}\` is no string`;
  throw new DataError(`${where}: ${what}; fields: ${found}.`, {
    hint: 'Set `field` of the source to the field of the text.',
  });
}
