import {type FileHandle, open, readFile} from 'node:fs/promises';
import {asEnvironmentError, writeFileAtomic} from '../util/atomic.js';
import {DataError, EnvironmentError, systemCode} from '../util/errors.js';
import {type RunLogRecord, runLogRecord} from './run-record.js';

/** A log that grows. Records reach the file in the order of the calls, awaited or not. */
export interface RunLog {
  /** Adds a line with one write; `checkpoint` and `end` are also synced to the disk, and everything before them. */
  append(record: RunLogRecord): Promise<void>;
  /** Waits until every line is on the disk. To be called before a checkpoint is made final. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** A line of the file with its newline, if it has one. */
interface Line {
  readonly bytes: Buffer;
  readonly number: number;
}

const NEWLINE = 0x0a;

/**
 * Opens `log.jsonl` for appending; makes it if it is not there.
 *
 * A process that was killed may leave a torn last line: it is cut off, or given its newline if only that is missing.
 * @throws EnvironmentError from `append` if the disk is full; no part of the line stays then.
 */
export async function openRunLog(path: string): Promise<RunLog> {
  const file = await openForAppending(path);
  let size = (await file.stat()).size;
  let last: Promise<unknown> = Promise.resolve();
  const inOrder = <T>(action: () => Promise<T>): Promise<T> => {
    const next = last.then(action, action);
    last = next.catch(() => undefined);
    return next;
  };
  const append = async (line: Buffer, isSynced: boolean): Promise<void> => {
    size = await appendLine(file, path, line, size);
    if (isSynced) await file.sync();
  };
  return {
    append: async (record) => {
      const line = renderLine(record);
      await inOrder(() => append(line, record.kind === 'checkpoint' || record.kind === 'end'));
    },
    sync: () => inOrder(() => file.sync()),
    close: () => inOrder(() => file.close()),
  };
}

/**
 * All records of a log, in order. A torn last line is left out.
 *
 * @throws DataError naming the line if the log is missing, damaged elsewhere, or of another schema.
 */
export async function readRunLog(path: string): Promise<readonly RunLogRecord[]> {
  const lines = splitLines(await readLog(path));
  return lines.filter((line) => !isTorn(line)).map((line) => parseLine(line, path));
}

/**
 * Takes a log back to a step, so that a run resumed there writes the rest anew; returns how many records went.
 *
 * Dropped are the records of later steps, every `end` (the run goes on) and a torn last line. The rest keeps its bytes.
 * The file is replaced at once; it must not be open.
 * @throws DataError as `readRunLog` does; the log stays as it was then.
 */
export async function truncateAfterStep(path: string, step: number): Promise<number> {
  const lines = splitLines(await readLog(path)).filter((line) => !isTorn(line));
  const kept = lines.filter((line) => isUpTo(parseLine(line, path), step));
  await writeFileAtomic(path, Buffer.concat(kept.map(closed)));
  return lines.length - kept.length;
}

function isUpTo(record: RunLogRecord, step: number): boolean {
  switch (record.kind) {
    case 'run':
      return true;
    case 'end':
      return false;
    case 'step':
    case 'eval':
    case 'checkpoint':
    case 'resume':
      return record.step <= step;
  }
}

/** Parsed after it became JSON: what the reader would refuse is never written. The schema gives the order of keys. */
function renderLine(record: RunLogRecord): Buffer {
  const parsed = runLogRecord.safeParse(JSON.parse(JSON.stringify(record)));
  if (parsed.success) return Buffer.from(`${JSON.stringify(parsed.data)}\n`);
  throw new TypeError(`a ${record.kind} record cannot be logged: ${describe(parsed.error.issues)}`);
}

/** Returns the new size of the file. A line that did not go in whole is taken out again. */
async function appendLine(file: FileHandle, path: string, line: Buffer, size: number): Promise<number> {
  try {
    const {bytesWritten} = await file.write(line);
    if (bytesWritten === line.length) return size + line.length;
    throw new EnvironmentError(`${path}: only ${bytesWritten} of ${line.length} bytes could be written.`, {
      hint: 'Free some space on the disk and resume the run.',
    });
  } catch (error) {
    await file.truncate(size);
    throw asEnvironmentError(error, path);
  }
}

async function openForAppending(path: string): Promise<FileHandle> {
  const file = await open(path, 'a').catch((error: unknown) => {
    throw asEnvironmentError(error, path);
  });
  try {
    await repair(file, path);
    return file;
  } catch (error) {
    await file.close();
    throw asEnvironmentError(error, path);
  }
}

async function repair(file: FileHandle, path: string): Promise<void> {
  const bytes = await readFile(path);
  const last = splitLines(bytes).at(-1);
  if (!last || last.bytes.at(-1) === NEWLINE) return;
  if (isTorn(last)) await file.truncate(bytes.length - last.bytes.length);
  else await file.write('\n');
  await file.sync();
}

async function readLog(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw asEnvironmentError(cause, path);
    throw new DataError(`${path}: there is no such log.`, {hint: 'Give the log.jsonl of a run folder.', cause});
  }
}

/** As bytes, since a long log is longer than the longest string. */
function splitLines(bytes: Buffer): readonly Line[] {
  const lines: Line[] = [];
  for (let begin = 0; begin < bytes.length; ) {
    const newline = bytes.indexOf(NEWLINE, begin);
    const end = newline < 0 ? bytes.length : newline + 1;
    lines.push({bytes: bytes.subarray(begin, end), number: lines.length + 1});
    begin = end;
  }
  return lines;
}

/** Only the last line can lack its newline; if it is a record all the same, nothing but the newline is missing. */
function isTorn({bytes}: Line): boolean {
  return bytes.at(-1) !== NEWLINE && !runLogRecord.safeParse(jsonOrUndefined(bytes)).success;
}

function closed({bytes}: Line): Buffer {
  return bytes.at(-1) === NEWLINE ? bytes : Buffer.concat([bytes, Buffer.from('\n')]);
}

function parseLine({bytes, number}: Line, path: string): RunLogRecord {
  const value = jsonOrUndefined(bytes);
  if (value === undefined) throw new DataError(`${path}:${number}: this line is not JSON.`);
  const record = runLogRecord.safeParse(value);
  if (record.success) return record.data;
  throw new DataError(`${path}:${number}: this is no record of a run: ${describe(record.error.issues)}.`);
}

function jsonOrUndefined(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}

function describe(issues: readonly {readonly path: readonly PropertyKey[]; readonly message: string}[]): string {
  const [issue] = issues;
  return issue ? `${issue.path.join('.')}: ${issue.message}` : 'it has another shape';
}
