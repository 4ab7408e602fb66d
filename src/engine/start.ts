import {EnvironmentError} from '../util/errors.js';
import {type LibraryLocation, locateTensorFlow} from './library/locate.js';
import {versionWarning} from './library/versions.js';
import {startRuntime} from './native/runtime.js';
import {type EngineInput, engineSchema} from './options.js';
import type {Precision} from './precision.js';
import {setEngine, startedEngine} from './state.js';

/** Which engine runs, and why. */
export interface EngineInfo {
  readonly engine: 'tensorflow' | 'wasm';
  readonly device: 'cpu' | 'cuda' | 'wasm';
  /** TensorFlow's version, or that of the WebAssembly backend. */
  readonly version: string;
  /** What matmul inputs are rounded to by default. */
  readonly precision: Precision;
  /** Where TensorFlow's libraries came from; null on wasm. */
  readonly location: LibraryLocation | null;
  /** What a person should know, one line each: a fallback, an untested version. */
  readonly notes: readonly string[];
}

const WASM_VERSION = '4.22.0';

/**
 * Starts the engine; call it once, before any tensor is made. A second call returns the first one's info.
 *
 * @throws EnvironmentError if the device asked for cannot be had. Only `auto` falls back to wasm, and says so.
 */
export async function startEngine(input: EngineInput = {}): Promise<EngineInfo> {
  if (info && startedEngine()) return info;
  const options = engineSchema.parse(input);
  info = options.device === 'wasm' ? await wasm([], options.precision) : await tensorflow(options);
  return info;
}

/** What {@link startEngine} started. */
export function engineInfo(): EngineInfo {
  if (!info) throw new Error('No engine is running: call startEngine() first.');
  return info;
}

let info: EngineInfo | null = null;

type Options = ReturnType<typeof engineSchema.parse>;

async function tensorflow({device, library, threads, precision}: Options): Promise<EngineInfo> {
  const wanted = device === 'wasm' ? 'auto' : device;
  const lookup = await locateTensorFlow({device: wanted, path: library});
  if (lookup.kind === 'missing') return withoutLibrary(device, precision, lookup.tried);
  const {location} = lookup;
  const runtime = startRuntime(location.folder, {threads, device: wanted});
  if (device === 'cuda' && !runtime.accelerator) {
    throw new EnvironmentError('engine.device is cuda, but TensorFlow found no usable GPU.', {
      hint: 'Run `downcycle doctor` to see what is missing, or set engine.device to cpu.',
    });
  }
  const {startBackend} = await import('./tensorflow/backend.js');
  setEngine({kind: 'tensorflow', backend: await startBackend(runtime)});
  const isCuda = runtime.accelerator !== null;
  return {
    engine: 'tensorflow',
    device: isCuda ? 'cuda' : 'cpu',
    version: runtime.version,
    precision: precision === 'auto' ? (isCuda ? 'bfloat16' : 'float32') : precision,
    location,
    notes: [...location.warnings, ...untested(location, runtime.version)],
  };
}

/** A folder that did not tell its version before it was loaded may hold an untested one. */
function untested({version}: LibraryLocation, loaded: string): string[] {
  const warning = version === null ? versionWarning(loaded) : null;
  return warning ? [warning] : [];
}

async function withoutLibrary(
  device: Options['device'],
  precision: Options['precision'],
  tried: readonly string[],
): Promise<EngineInfo> {
  const missing = `TensorFlow was not found: ${tried.join(' ')}`;
  if (device === 'auto') return wasm([`${missing} The slower WebAssembly engine runs instead.`], precision);
  throw new EnvironmentError(`engine.device is ${device}, but ${missing}`, {
    hint: `Run \`node scripts/setup.mjs${device === 'cuda' ? ' --cuda' : ''}\` to fetch it, or set engine.device to auto or wasm.`,
  });
}

async function wasm(notes: readonly string[], precision: Options['precision']): Promise<EngineInfo> {
  const {startWasm} = await import('./wasm/backend.js');
  await startWasm();
  setEngine({kind: 'wasm'});
  const ignored = precision === 'bfloat16' ? ['engine.precision bfloat16 is ignored: wasm computes in float32.'] : [];
  return {
    engine: 'wasm',
    device: 'wasm',
    version: WASM_VERSION,
    precision: 'float32',
    location: null,
    notes: [...notes, ...ignored],
  };
}
