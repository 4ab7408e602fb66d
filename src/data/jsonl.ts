import {DataError} from '../util/errors.js';
import {readLines} from './lines.js';
import {type SourceRecord, textOf} from './record.js';

/**
 * The documents of a JSON Lines file, one object a line; empty lines are passed over.
 *
 * @throws DataError with file and line if a line is no JSON object or lacks the text.
 */
export async function* readJsonl(path: string, field?: string): AsyncGenerator<string> {
  for await (const record of readJsonlRecords(path)) yield textOf(record, field);
}

/** The same as records, with all their fields. @throws DataError with file and line if a line is no JSON. */
export async function* readJsonlRecords(path: string): AsyncGenerator<SourceRecord> {
  let number = 0;
  for await (const line of readLines(path)) {
    number++;
    const where = `${path}:${number}`;
    if (line.trim() !== '') yield {where, value: parseLine(where, line)};
  }
}

function parseLine(where: string, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new DataError(`${where}: not JSON: ${reason}.`, {hint: 'Every line must be one JSON object.', cause: error});
  }
}
