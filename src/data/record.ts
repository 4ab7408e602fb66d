import {DataError} from '../util/errors.js';

/** A record of a file, unchecked. */
export interface SourceRecord {
  /** `file:line`, or `file: row n`. */
  readonly where: string;
  readonly value: unknown;
}

/**
 * The text of a record: its `field`; without one `text`, else `prompt` and `target` with a space between them unless
 * there is white space already.
 *
 * @throws DataError naming the place, what was looked for and which fields there are.
 */
export function textOf(record: SourceRecord, field?: string): string {
  const fields = fieldsOf(record);
  const text = (name: string): string => asText(record.where, name, fields);
  if (field !== undefined) return text(field);
  if ('text' in fields || !('prompt' in fields && 'target' in fields)) return text('text');
  return `${text('prompt')}${targetAfter(text('prompt'), text('target'))}`;
}

/**
 * The task of a record: the word, number or truth value in a field of it.
 *
 * @throws DataError naming the place, what was looked for and which fields there are.
 */
export function taskOf(
  record: SourceRecord,
  field: string,
  hint = 'Set profile.task.field to a field that every record has, a word or a number.',
): string {
  const fields = fieldsOf(record);
  const value = fields[field];
  if (['string', 'number', 'bigint', 'boolean'].includes(typeof value)) return String(value);
  throw new DataError(`${record.where}: ${fault(field, value, 'names no task', fields)}`, {hint});
}

/** The fields of a record. @throws DataError if it is no object. */
export function fieldsOf({where, value}: SourceRecord): Readonly<Record<string, unknown>> {
  if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new DataError(`${where}: not an object.`, {hint: 'Every record must be one object.'});
}

/** The target as it follows the prompt: after a space, unless there is white space already. */
export function targetAfter(prompt: string, target: string): string {
  const isParted = /\s$/.test(prompt) || /^\s/.test(target);
  return `${isParted ? '' : ' '}${target}`;
}

/** The string in a field. @throws DataError naming the place, the field and which fields there are. */
export function asText(
  where: string,
  name: string,
  fields: Readonly<Record<string, unknown>>,
  hint = 'In a config `field` of the source names the field of the text; elsewhere it is `text`.',
): string {
  const value = fields[name];
  if (typeof value === 'string') return value;
  throw new DataError(`${where}: ${fault(name, value, 'is no string', fields)}`, {hint});
}

/** What is wrong with the value of a field: that there is none, or `otherwise`. */
export function fault(name: string, value: unknown, otherwise: string, fields: object): string {
  const found = Object.keys(fields).join(', ') || 'none';
  const what = value === undefined ? `no field \`${name}\`` : `field \`${name}\` ${otherwise}`;
  return `${what}; fields: ${found}.`;
}
