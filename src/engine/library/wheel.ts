import {createHash} from 'node:crypto';
import {createWriteStream} from 'node:fs';
import {mkdir, open, rm} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {pipeline} from 'node:stream/promises';
import {asEnvironmentError} from '../../util/atomic.js';
import {DowncycleError, systemCode} from '../../util/errors.js';
import {damaged, openEntry, readZip, type Zip, type ZipEntry} from './unzip.js';

/** What a wheel's RECORD says of one of its files. */
export interface RecordLine {
  /** SHA-256 in base64url without padding; null for the few files that have none. */
  readonly sha256: string | null;
  readonly size: number | null;
}

export interface UnpackOptions {
  /** The wheel, a ZIP file. */
  readonly wheel: string;
  readonly folder: string;
  /** Matches the paths to unpack. */
  readonly needed: RegExp;
  /** Told how many more bytes were written. */
  readonly onBytes?: (bytes: number) => void;
}

/** TensorFlow's RECORD has 1.7 MB. */
const MAX_RECORD_BYTES = 64 * 2 ** 20;
const RECORD_PATH = /^[^/]+\.dist-info\/RECORD$/;

/**
 * Unpacks the needed files of a wheel into `folder` and checks each against the hash in the wheel's own RECORD
 * (Python packaging: "Recording installed projects").
 *
 * @returns the size in bytes of each unpacked file, by its path.
 * @throws EnvironmentError if the wheel is damaged or holds nothing needed, or the disk is full; the files written so far are removed.
 */
export async function unpackWheel({wheel, folder, needed, onBytes}: UnpackOptions): Promise<Record<string, number>> {
  const file = await open(wheel, 'r');
  const written: string[] = [];
  try {
    const zip = await readZip(wheel, file);
    const record = await readRecord(zip);
    const entries = zip.entries.filter(({name}) => needed.test(name));
    if (entries.length === 0) throw damaged(wheel, `it holds no ${needed.source}`);
    for (const entry of entries) {
      const path = safePath(wheel, folder, entry.name);
      written.push(path);
      await unpackEntry(zip, entry, record.get(entry.name), path, onBytes);
    }
    return Object.fromEntries(entries.map(({name, size}) => [name, size]));
  } catch (error) {
    for (const path of written) await rm(path, {force: true});
    throw asUnpackError(error, wheel, folder);
  } finally {
    await file.close();
  }
}

/** Reads a RECORD: lines of `path,sha256=hash,size`, a path in quotes if it holds a comma. */
export function parseRecord(text: string): Map<string, RecordLine> {
  const lines = new Map<string, RecordLine>();
  for (const line of text.split(/\r?\n/)) {
    const match = /^(?:"((?:[^"]|"")*)"|([^,]*)),(?:sha256=([\w-]+))?[^,]*,(\d*)$/.exec(line);
    if (!match) continue;
    const path = match[1]?.replaceAll('""', '"') ?? match[2] ?? '';
    lines.set(path, {sha256: match[3] ?? null, size: match[4] ? Number(match[4]) : null});
  }
  return lines;
}

async function readRecord(zip: Zip): Promise<Map<string, RecordLine>> {
  const [entry, ...others] = zip.entries.filter(({name}) => RECORD_PATH.test(name));
  if (!entry || others.length > 0) throw damaged(zip.path, `it has ${entry ? 'more than one' : 'no'} RECORD`);
  if (entry.size > MAX_RECORD_BYTES) throw damaged(zip.path, `its RECORD has ${entry.size} bytes`);
  const chunks: Buffer[] = [];
  for await (const chunk of limited(zip, entry, await openEntry(zip, entry))) chunks.push(chunk);
  return parseRecord(Buffer.concat(chunks).toString('utf8'));
}

async function unpackEntry(
  zip: Zip,
  entry: ZipEntry,
  recorded: RecordLine | undefined,
  path: string,
  onBytes: (bytes: number) => void = () => {},
): Promise<void> {
  if (!recorded?.sha256) throw damaged(zip.path, `its RECORD has no SHA-256 of ${entry.name}`);
  await mkdir(dirname(path), {recursive: true});
  const hash = createHash('sha256');
  const source = limited(zip, entry, await openEntry(zip, entry), (chunk) => {
    hash.update(chunk);
    onBytes(chunk.length);
  });
  // Flushed to the disk, since the marker written later promises that the file is whole.
  await pipeline(source, createWriteStream(path, {mode: entry.isExecutable ? 0o755 : 0o644, flush: true}));
  const found = hash.digest('base64url');
  if (found !== recorded.sha256) {
    throw damaged(zip.path, `${entry.name} has SHA-256 ${found}, its RECORD says ${recorded.sha256}`);
  }
}

/** The chunks of an entry; fails once they are more, or in the end less, than the directory says. */
async function* limited(
  zip: Zip,
  {name, size}: ZipEntry,
  chunks: AsyncIterable<Buffer>,
  onChunk: (chunk: Buffer) => void = () => {},
): AsyncGenerator<Buffer> {
  let total = 0;
  for await (const chunk of chunks) {
    total += chunk.length;
    if (total > size) break;
    onChunk(chunk);
    yield chunk;
  }
  if (total !== size) throw damaged(zip.path, `${name} has ${total > size ? 'more' : 'less'} than its ${size} bytes`);
}

/** Where an entry goes; a name that would leave the folder is refused. */
function safePath(wheel: string, folder: string, name: string): string {
  const parts = name.split('/');
  if (name.includes('\\') || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw damaged(wheel, `it names a file outside of itself, ${JSON.stringify(name)}`);
  }
  return join(folder, ...parts);
}

function asUnpackError(error: unknown, wheel: string, folder: string): unknown {
  if (error instanceof DowncycleError) return error;
  // zlib's own codes: Z_DATA_ERROR, Z_BUF_ERROR ...
  if (systemCode(error)?.startsWith('Z_')) return damaged(wheel, 'its packed bytes make no sense');
  return asEnvironmentError(error, folder);
}
