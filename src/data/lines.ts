import {createReadStream} from 'node:fs';
import {TextDecoder} from 'node:util';
import {DataError, whyUnread} from '../util/errors.js';

/** A longer line is no line of text or JSON; Node's strings end not far above. */
const MAX_LINE_LENGTH = 2 ** 28;

/**
 * The lines of a UTF-8 file without their line ends (`\n` or `\r\n`), read as they are asked for.
 *
 * Not `readline`: it also splits at U+2028, which may stand inside a JSON string.
 * @throws DataError if the file cannot be read, is not UTF-8 or has a line of more than 2^28 characters.
 */
export async function* readLines(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const text of decodeFile(path)) {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    if (rest.length > MAX_LINE_LENGTH) {
      throw new DataError(`${path} has a line of more than ${MAX_LINE_LENGTH} characters.`, {hint: 'Split it.'});
    }
    for (const line of lines) yield line.endsWith('\r') ? line.slice(0, -1) : line;
  }
  if (rest) yield rest;
}

async function* decodeFile(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', {fatal: true});
  let offset = 0;
  try {
    for await (const chunk of createReadStream(path, {highWaterMark: 2 ** 20}) as AsyncIterable<Buffer>) {
      yield decoder.decode(chunk, {stream: true});
      offset += chunk.length;
    }
    yield decoder.decode();
  } catch (error) {
    if (!(error instanceof TypeError)) throw unreadable(path, error);
    throw new DataError(`${path} is not UTF-8 text (somewhere after byte ${offset}).`, {
      hint: 'Convert it, for example with iconv.',
      cause: error,
    });
  }
}

function unreadable(path: string, cause: unknown): DataError {
  return new DataError(`${path}: ${whyUnread(cause)}.`, {cause});
}
