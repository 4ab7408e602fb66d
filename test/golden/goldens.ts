// Reads golden numbers: those beside the repository, and the few that are kept in test/fixtures/golden.
import {existsSync, readFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import type {Host} from '../support/host.js';

const root = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));

/** Golden numbers too large for the repository; see {@link hasGoldens}. */
export const GOLDENS = root('../shared/goldens');
/** Golden numbers of the repository itself. */
export const FIXTURES = root('test/fixtures/golden');

export const hasGoldens = existsSync(GOLDENS);

/** Says in a test's name why it is skipped where there are no goldens. */
export const needsGoldens = hasGoldens ? '' : ' (skipped: no ../shared/goldens)';

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** F32 and I32 tensors of a safetensors file, by name. */
export function readTensors(path: string): Record<string, Host> {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<string, Entry>;
  const entries = Object.entries(header).filter(([name]) => name !== '__metadata__');
  return Object.fromEntries(entries.map(([name, entry]) => [name, hostOf(entry, file.subarray(start))]));
}

interface Entry {
  readonly dtype: string;
  readonly shape: number[];
  readonly data_offsets: [number, number];
}

function hostOf({dtype, shape, data_offsets: [begin, end]}: Entry, data: Uint8Array): Host {
  const {buffer} = Uint8Array.from(data.subarray(begin, end)); // a copy: a Buffer shares its memory
  if (dtype === 'F32') return {shape, dtype: 'float32', values: new Float32Array(buffer)};
  if (dtype === 'I32') return {shape, dtype: 'int32', values: new Int32Array(buffer)};
  throw new Error(`no golden tensor is ${dtype}`);
}
