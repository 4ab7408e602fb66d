import {existsSync, readFileSync} from 'node:fs';
import {mkdir, readdir, rename, rm, rmdir, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {asEnvironmentError, writeFileAtomic} from '../../util/atomic.js';
import {DowncycleError, EnvironmentError, systemCode} from '../../util/errors.js';
import {inTurn} from '../../util/turn.js';
import {
  cachedLibrary,
  defaultCacheFolder,
  holdsLibrary,
  MARKER_FILE,
  type RuntimeMarker,
  runtimeFolder,
} from './cache.js';
import {type Host, thisHost, unsupportedReason} from './host.js';
import {explainPipFailure, pipArguments, runPython} from './python.js';
import {LIBRARY_FILES, TENSORFLOW_VERSION, type Variant, type Wheel, wheelsFor} from './versions.js';
import {unpackWheel} from './wheel.js';

/** How far a fetch has come, in units of 10^6 bytes over all its wheels. */
export type FetchProgress =
  | {readonly stage: 'wait'; readonly holder: number}
  | {readonly stage: 'download'; readonly wheel: string; readonly megabytes: number; readonly of: number}
  | {readonly stage: 'unpack'; readonly wheel: string; readonly megabytes: number};

export interface FetchOptions {
  readonly variant: Variant;
  /** Where downcycle keeps what it fetches; the user's cache folder by default. */
  readonly cacheFolder?: string;
  readonly onProgress?: (progress: FetchProgress) => void;
  /** Environment of pip: PATH finds python3, PIP_* set indexes and proxies. This process's by default. */
  readonly env?: NodeJS.ProcessEnv;
  /** The machine the libraries are for; this one by default. */
  readonly host?: Host;
}

/** One fetch under way. All it writes before the end lies in `work`, so that a rerun finds it and a failure can remove it. */
interface Fetch {
  readonly variant: Variant;
  readonly env: NodeJS.ProcessEnv;
  readonly arch: string;
  readonly work: string;
  readonly onProgress: (progress: FetchProgress) => void;
}

/** Milliseconds between two looks at how much pip has written. */
const LOOK = 250;

/**
 * Fetches TensorFlow's shared libraries into the cache with pip, unless a whole runtime is there.
 *
 * Wheels already downloaded by an interrupted run are not downloaded again; two processes take turns; the runtime
 * appears in one rename, each file checked against its wheel's RECORD.
 * @returns the folder that holds the two libraries.
 * @throws EnvironmentError if the machine is not supported, python3, pip or the network is missing, the disk is full, or a wheel is damaged.
 */
export async function fetchTensorFlow(options: FetchOptions): Promise<string> {
  const {variant, env = process.env, host = thisHost(), onProgress = () => {}} = options;
  const reason = unsupportedReason(host, variant);
  if (reason) throw new EnvironmentError(reason, {hint: 'The wasm engine runs here; it is slower.'});
  const cacheFolder = options.cacheFolder ?? defaultCacheFolder(env);
  const target = runtimeFolder(cacheFolder, variant);
  const found = cachedLibrary(cacheFolder, variant);
  if (found) return found;
  try {
    await mkdir(dirname(target), {recursive: true});
    const lock = {onWait: (holder: number) => onProgress({stage: 'wait', holder})};
    return await inTurn(`${target}.lock`, lock, async () => {
      const fetchedMeanwhile = cachedLibrary(cacheFolder, variant);
      if (fetchedMeanwhile) return fetchedMeanwhile;
      return buildRuntime({variant, env, arch: host.arch, work: `${target}.part`, onProgress}, target);
    });
  } catch (error) {
    throw asFetchError(error, target);
  }
}

async function buildRuntime(fetch: Fetch, target: string): Promise<string> {
  const root = join(fetch.work, 'root');
  await mkdir(root, {recursive: true});
  const wheels = wheelsFor(fetch.variant, fetch.arch);
  const files: Record<string, number> = {};
  for (const [index, wheel] of wheels.entries()) Object.assign(files, await fetchWheel(fetch, wheels, index, wheel));
  if (!holdsLibrary(join(root, 'tensorflow'))) {
    await rm(fetch.work, {recursive: true, force: true});
    throw new EnvironmentError(`${wheels[0]?.name} ${TENSORFLOW_VERSION} lacks one of ${LIBRARY_FILES.join(', ')}.`);
  }
  const marker: RuntimeMarker = {version: TENSORFLOW_VERSION, variant: fetch.variant, files};
  await writeFileAtomic(join(root, MARKER_FILE), `${JSON.stringify(marker, null, 1)}\n`);
  await rm(target, {recursive: true, force: true}); // only a damaged runtime can be there
  await rename(root, target);
  await rm(fetch.work, {recursive: true, force: true});
  return join(target, 'tensorflow');
}

/** Downloads and unpacks one wheel, as far as an earlier run has not; returns the sizes of its unpacked files. */
async function fetchWheel(
  fetch: Fetch,
  wheels: readonly Wheel[],
  index: number,
  wheel: Wheel,
): Promise<Record<string, number>> {
  const listing = join(fetch.work, `${wheel.name}.json`);
  if (existsSync(listing)) return JSON.parse(readFileSync(listing, 'utf8')) as Record<string, number>;
  const path = join(fetch.work, `${wheel.name}-${wheel.version}.whl`);
  if (!existsSync(path)) await download(fetch, wheel, path, progressOf(fetch, wheels, index));
  const files = await unpack(fetch, wheel, path);
  await writeFileAtomic(listing, JSON.stringify(files));
  await rm(path);
  return files;
}

async function unpack({work, onProgress}: Fetch, wheel: Wheel, path: string): Promise<Record<string, number>> {
  let bytes = 0;
  const onBytes = (more: number): void => {
    bytes += more;
    onProgress({stage: 'unpack', wheel: wheel.name, megabytes: bytes / 1e6});
  };
  try {
    return await unpackWheel({wheel: path, folder: join(work, 'root'), needed: wheel.needed, onBytes});
  } catch (error) {
    await rm(work, {recursive: true, force: true}); // a damaged wheel or a full disk: begin anew, leave nothing
    throw error;
  }
}

/** Lets pip download into a folder of its own, so that a wheel at `path` is always whole. */
async function download(
  {env, arch, work}: Fetch,
  wheel: Wheel,
  path: string,
  onMegabytes: (done: number) => void,
): Promise<void> {
  const temporary = join(work, 'pip');
  const looking = setInterval(() => void largestFile(temporary).then((bytes) => onMegabytes(bytes / 1e6)), LOOK);
  try {
    await rm(temporary, {recursive: true, force: true});
    await mkdir(join(temporary, 'wheel'), {recursive: true});
    const result = await runPython(pipArguments(wheel, arch, join(temporary, 'wheel')), {
      env: pipEnvironment(env, temporary),
    });
    const [name] = await readdir(join(temporary, 'wheel'));
    if (result.code !== 0 || name === undefined) throw explainPipFailure(wheel, result);
    await rename(join(temporary, 'wheel', name), path);
  } finally {
    clearInterval(looking);
    await rm(temporary, {recursive: true, force: true});
    await removeIfUnused(work);
  }
}

/** Whatever the file system refuses is for the machine's owner to act on, and no reason to do without an engine. */
function asFetchError(error: unknown, target: string): unknown {
  const known = asEnvironmentError(error, target);
  if (known instanceof DowncycleError || !(error instanceof Error) || systemCode(error) === undefined) return known;
  const hint = 'Set XDG_CACHE_HOME to a folder that can be written.';
  return new EnvironmentError(`${target}: ${error.message}.`, {hint, cause: error});
}

function pipEnvironment(env: NodeJS.ProcessEnv, temporary: string): NodeJS.ProcessEnv {
  // pip writes what it receives to TMPDIR: there it can be watched and never fills a small /tmp.
  return {...env, TMPDIR: temporary, PIP_DISABLE_PIP_VERSION_CHECK: '1', PIP_REQUIRE_VIRTUALENV: '0', PYTHONUTF8: '1'};
}

function progressOf({onProgress}: Fetch, wheels: readonly Wheel[], index: number): (megabytes: number) => void {
  const before = wheels.slice(0, index).reduce((sum, {megabytes}) => sum + megabytes, 0);
  const of = wheels.reduce((sum, {megabytes}) => sum + megabytes, 0);
  const {name, megabytes: whole} = wheels[index] ?? {name: '', megabytes: 0};
  return (megabytes) =>
    onProgress({stage: 'download', wheel: name, megabytes: before + Math.min(megabytes, whole), of});
}

/** Removes the work folder if no wheel of any run is in it. */
async function removeIfUnused(work: string): Promise<void> {
  await rmdir(join(work, 'root')).catch(() => {});
  await rmdir(work).catch(() => {});
}

/** pip writes a wheel to a temporary file and then copies it: the larger of the two tells how far it is. */
async function largestFile(folder: string): Promise<number> {
  const names = await readdir(folder, {recursive: true}).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        (found) => (found.isFile() ? found.size : 0),
        () => 0,
      ),
    ),
  );
  return Math.max(0, ...sizes);
}
