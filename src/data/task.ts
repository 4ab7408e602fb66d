// Tasks that records name themselves: `{"text": "...", "domain": "law"}`.
import {DataError} from '../util/errors.js';
import type {SourceOptions} from './options.js';
import {pathText} from './path.js';
import {digestOf, isHeldOut} from './prepare.js';
import {taskOf} from './record.js';
import {readRecords} from './source.js';

/** A training document and the task that its record names. */
export interface TaskDocument {
  readonly task: string;
  readonly text: string;
  /** SHA-256 of the text, in hex. */
  readonly digest: string;
}

/** A field of more values names documents, not tasks. */
const MAX_TASKS = 1000;

/**
 * The training documents of all sources that hold records, each with the task in `field`; what is kept for validation is
 * left out, as `prepare` leaves it out. Sources of plain text and of shards have no records and are passed over.
 *
 * @param share part of the documents that is kept for validation.
 * @throws DataError if no source has records or training text, a record lacks the field, or it has more than 1000 values.
 */
export async function* readTaskDocuments(
  sources: readonly SourceOptions[],
  field: string,
  share: number,
): AsyncGenerator<TaskDocument> {
  const tasks = new Set<string>();
  for (const source of sources) {
    for await (const record of readRecords(source, field)) {
      const task = taskOf(record, field);
      const digest = digestOf(record.text);
      if (isHeldOut(digest, share)) continue;
      if (tasks.add(task).size > MAX_TASKS) throw tooMany(record.where, field);
      yield {task, text: record.text, digest};
    }
  }
  if (tasks.size === 0) throw noRecords(sources, field);
}

function tooMany(where: string, field: string): DataError {
  return new DataError(`${where}: field \`${field}\` has more than ${MAX_TASKS} values so far; each would be a task.`, {
    hint: 'Name a field of few values, such as the kind of text.',
  });
}

function noRecords(sources: readonly SourceOptions[], field: string): DataError {
  const named = sources.map(({name, path}) => `${name} (${pathText(path)})`).join(', ');
  return new DataError(`No training document is in a record with a field \`${field}\`: the sources are ${named}.`, {
    hint: 'Give a source of .jsonl or .parquet files, or set profile.task to source.',
  });
}
