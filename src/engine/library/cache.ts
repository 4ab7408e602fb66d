import {existsSync, readdirSync, readFileSync, statSync} from 'node:fs';
import {homedir} from 'node:os';
import {dirname, isAbsolute, join} from 'node:path';
import {LIBRARY_FILES, TENSORFLOW_VERSION, type Variant} from './versions.js';

/** Name of the file that makes a fetched runtime whole; it is written last. */
export const MARKER_FILE = 'complete.json';

/** What a fetched runtime says of itself, so that a damaged one is seen without hashing a gigabyte. */
export interface RuntimeMarker {
  readonly version: string;
  readonly variant: Variant;
  /** Size in bytes of each file, by its path in the runtime. */
  readonly files: Readonly<Record<string, number>>;
}

/** Where downcycle keeps what it fetched: `downcycle` in $XDG_CACHE_HOME, or in ~/.cache. */
export function defaultCacheFolder(env: NodeJS.ProcessEnv): string {
  const base = env.XDG_CACHE_HOME;
  // The XDG specification says that a relative path is to be ignored.
  return join(base && isAbsolute(base) ? base : join(env.HOME || homedir(), '.cache'), 'downcycle');
}

/** The folder of one fetched runtime, laid out as Python's site-packages. */
export function runtimeFolder(cacheFolder: string, variant: Variant): string {
  return join(cacheFolder, 'tensorflow', `${TENSORFLOW_VERSION}-${variant}`);
}

/** The library folder of a whole runtime of `variant` in the cache, or null. */
export function cachedLibrary(cacheFolder: string, variant: Variant): string | null {
  const root = runtimeFolder(cacheFolder, variant);
  const marker = readMarker(root);
  const isWhole =
    marker !== null && Object.entries(marker.files).every(([path, size]) => sizeOf(join(root, path)) === size);
  return isWhole && holdsLibrary(join(root, 'tensorflow')) ? join(root, 'tensorflow') : null;
}

/** Whether both shared libraries lie in `folder`. */
export function holdsLibrary(folder: string): boolean {
  return LIBRARY_FILES.every((name) => existsSync(join(folder, name)));
}

/** The version of the TensorFlow in `folder` without loading it: our marker's, or that of the dist-info folder beside; else null. */
export function versionOf(folder: string): string | null {
  const root = dirname(folder);
  const marker = readMarker(root);
  if (marker) return marker.version;
  for (const name of listFolder(root)) {
    const version = /^tensorflow(?:_[a-z_]+)?-(\d[^-]*)\.(?:dist|egg)-info$/.exec(name)?.[1];
    if (version) return version;
  }
  return null;
}

/** Which build lies in `folder`, without loading it: its build_info.py tells, or else NVIDIA's libraries beside it. */
export function variantOf(folder: string): Variant {
  const info = readText(join(folder, 'python', 'platform', 'build_info.py'));
  if (info !== null) return /is_cuda_build['"]\s*[,:]\s*True/.test(info) ? 'cuda' : 'cpu';
  return existsSync(join(dirname(folder), 'nvidia')) ? 'cuda' : 'cpu';
}

function readMarker(root: string): RuntimeMarker | null {
  const text = readText(join(root, MARKER_FILE));
  if (text === null) return null;
  try {
    const value: unknown = JSON.parse(text);
    return isMarker(value) ? value : null;
  } catch {
    return null; // a torn marker is no marker
  }
}

function isMarker(value: unknown): value is RuntimeMarker {
  if (typeof value !== 'object' || value === null) return false;
  if (!('version' in value && 'variant' in value && 'files' in value)) return false;
  const {version, variant, files} = value;
  return (
    typeof version === 'string' &&
    (variant === 'cpu' || variant === 'cuda') &&
    typeof files === 'object' &&
    files !== null
  );
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path).sort();
  } catch {
    return [];
  }
}

function sizeOf(path: string): number | undefined {
  return statSync(path, {throwIfNoEntry: false})?.size;
}
