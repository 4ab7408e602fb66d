import {resolve} from 'node:path';
import {EnvironmentError} from '../../util/errors.js';
import {cachedLibrary, defaultCacheFolder, holdsLibrary, variantOf, versionOf} from './cache.js';
import {hasNvidiaDriver} from './host.js';
import {findPythonTensorFlow} from './python.js';
import {isTestedVersion, LIBRARY_FILES, TENSORFLOW_VERSION, type Variant, versionWarning} from './versions.js';

/** What the engine was asked to run on. */
type Device = 'auto' | 'cpu' | 'cuda';

/** Where TensorFlow's shared libraries lie, and what is known of them without loading them. */
export interface LibraryLocation {
  /** Holds the files of `LIBRARY_FILES`. */
  readonly folder: string;
  /** Null if nothing beside an explicit folder tells it; TF_Version tells it once loaded. */
  readonly version: string | null;
  readonly variant: Variant;
  readonly source: 'config' | 'environment' | 'python' | 'cache';
  /** What a person should know: an untested version, a CPU build where a GPU is. */
  readonly warnings: readonly string[];
}

/** What a look for the libraries gave; `tried` has one line for each place that had none. */
export type Lookup =
  | {readonly kind: 'found'; readonly location: LibraryLocation}
  | {readonly kind: 'missing'; readonly tried: readonly string[]};

export interface LocateOptions {
  readonly device: Device;
  /** The config's `engine.library`. */
  readonly path?: string | undefined;
  /** This process's environment by default. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cacheFolder?: string;
  /** Whether an NVIDIA driver is here; looked for by default. */
  readonly hasGpu?: boolean;
}

/** The environment variable that names a library folder. */
const LIBRARY_VARIABLE = 'DOWNCYCLE_TENSORFLOW';

/**
 * Looks for TensorFlow's shared libraries: the config's folder, that of DOWNCYCLE_TENSORFLOW, an importable Python
 * `tensorflow` of a tested version, our cache. Python, which takes 0.1 s to ask, is left out if the cache has the build wanted.
 *
 * @throws EnvironmentError if an explicit folder lacks a library: a wrong path is never replaced in silence.
 */
export async function locateTensorFlow(options: LocateOptions): Promise<Lookup> {
  const {device, path, env = process.env, hasGpu = hasNvidiaDriver()} = options;
  if (path) return found(explicit(path, 'config'), device, hasGpu);
  const variable = env[LIBRARY_VARIABLE];
  if (variable) return found(explicit(variable, 'environment'), device, hasGpu);

  const variants = preferredVariants(device, hasGpu);
  const cacheFolder = options.cacheFolder ?? defaultCacheFolder(env);
  const cached = variants.flatMap((variant) => fromCache(cacheFolder, variant));
  if (cached[0] && cached[0].variant === variants[0]) return found(cached[0], device, hasGpu);
  const python = await fromPython(env);
  const best = bestOf([...('location' in python ? [python.location] : []), ...cached], variants);
  if (best) return found(best, device, hasGpu);
  return {
    kind: 'missing',
    tried: [
      reasonAgainst(python, variants),
      `${cacheFolder} holds no TensorFlow ${TENSORFLOW_VERSION} built for ${variants.join(' or ')}.`,
    ],
  };
}

/** Builds that serve `device`, the better one first: a CUDA build runs on the processor too, but loads more. */
function preferredVariants(device: Device, hasGpu: boolean): readonly Variant[] {
  switch (device) {
    case 'cuda':
      return ['cuda'];
    case 'cpu':
      return ['cpu', 'cuda'];
    case 'auto':
      return hasGpu ? ['cuda', 'cpu'] : ['cpu', 'cuda'];
  }
}

/** The first of `locations` that is of the most preferred build there is; null if none is of any. */
function bestOf(locations: readonly LibraryLocation[], variants: readonly Variant[]): LibraryLocation | null {
  for (const variant of variants) {
    const location = locations.find((one) => one.variant === variant);
    if (location) return location;
  }
  return null;
}

function explicit(path: string, source: 'config' | 'environment'): LibraryLocation {
  const folder = resolve(path);
  if (holdsLibrary(folder))
    return {folder, version: versionOf(folder), variant: variantOf(folder), source, warnings: []};
  const asked = source === 'config' ? 'engine.library' : LIBRARY_VARIABLE;
  throw new EnvironmentError(`${asked} names ${folder}, which does not hold both ${LIBRARY_FILES.join(' and ')}.`, {
    hint: `Name the folder that does, e.g. site-packages/tensorflow, or leave ${asked} out.`,
  });
}

function fromCache(cacheFolder: string, variant: Variant): LibraryLocation[] {
  const folder = cachedLibrary(cacheFolder, variant);
  return folder ? [{folder, version: TENSORFLOW_VERSION, variant, source: 'cache', warnings: []}] : [];
}

type PythonLookup = {readonly location: LibraryLocation} | {readonly reason: string};

async function fromPython(env: NodeJS.ProcessEnv): Promise<PythonLookup> {
  const folder = await findPythonTensorFlow(env);
  if (!folder) return {reason: 'python3 on the PATH can import no tensorflow.'};
  const version = versionOf(folder);
  if (version === null || !isTestedVersion(version)) return {reason: `${folder}: ${versionWarning(version)}`};
  if (!holdsLibrary(folder)) return {reason: `${folder} lacks one of ${LIBRARY_FILES.join(', ')}.`};
  return {location: {folder, version, variant: variantOf(folder), source: 'python', warnings: []}};
}

function reasonAgainst(python: PythonLookup, variants: readonly Variant[]): string {
  if ('reason' in python) return python.reason;
  return `${python.location.folder} is a build for ${python.location.variant}; wanted is one for ${variants.join(' or ')}.`;
}

function found(location: LibraryLocation, device: Device, hasGpu: boolean): Lookup {
  const warnings: string[] = [];
  // A library of unknown version is asked for it once loaded.
  const warning = location.version === null ? null : versionWarning(location.version);
  if (warning) warnings.push(warning);
  if (location.variant === 'cpu' && (device === 'cuda' || (device === 'auto' && hasGpu))) {
    warnings.push(
      `${location.folder} is a build without CUDA. For the GPU fetch the other: node scripts/setup.mjs --cuda`,
    );
  }
  return {kind: 'found', location: {...location, warnings}};
}
