import {totalmem} from 'node:os';
import {join} from 'node:path';
import {EnvironmentError} from '../../util/errors.js';
import {LIBRARY_FILES} from '../library/versions.js';
import {type CApi, loadCApi, type Pointer} from './c-api.js';
import {configProto} from './config-proto.js';
import {makeFewHeaps} from './malloc.js';
import {programFlags, programFolder} from './program-cache.js';

/** A device TensorFlow found, for example `/job:localhost/replica:0/task:0/device:CPU:0`. */
export interface Device {
  readonly name: string;
  readonly type: string;
}

/** A started TensorFlow: the bound C API and one eager context. */
export interface Runtime {
  readonly c: CApi;
  readonly context: Pointer;
  /** Status object of all synchronous calls; asynchronous calls own theirs. */
  readonly status: Pointer;
  readonly version: string;
  readonly devices: readonly Device[];
  /** The device that computes, `/device:GPU:0`, or null for the CPU; without its task, which changes in a cluster. */
  readonly accelerator: string | null;
  /** Folder of compiled programs; null where none are kept. */
  readonly programs: string | null;
}

/** An error TensorFlow reported, with its status code. */
export class TensorFlowError extends Error {
  constructor(
    message: string,
    readonly code: number,
  ) {
    super(message);
    this.name = 'TensorFlowError';
  }
}

const RESOURCE_EXHAUSTED = 8;
/** `TFE_DEVICE_PLACEMENT_SILENT`: inputs on another device are copied as needed. */
const PLACEMENT_SILENT = 2;

/** TensorFlow's own default limit of the pool; never less. */
const MIN_POOL_MB = 65_536;

/** How the runtime is started. */
export interface RuntimeOptions {
  /** Threads inside one operation; 0, the default, means one per core. */
  readonly threads?: number;
  /** `cpu` leaves a GPU alone; by default the first one computes. */
  readonly device?: 'auto' | 'cpu' | 'cuda';
}

/** Starts TensorFlow from the folder that holds its libraries. */
export function startRuntime(folder: string, {threads = 0, device = 'auto'}: RuntimeOptions = {}): Runtime {
  setEnvironment();
  makeFewHeaps();
  const programs = keepPrograms(folder, threads);
  const c = loadCApi(folder);
  const status = c.TF_NewStatus();
  const options = c.TFE_NewContextOptions();
  const config = configProto({threads, allowGrowth: true, gpu: device !== 'cpu'});
  c.TFE_ContextOptionsSetConfig(options, config, config.length, status);
  check(c, status, 'TensorFlow configuration');
  c.TFE_ContextOptionsSetDevicePlacementPolicy(options, PLACEMENT_SILENT);
  const context = c.TFE_NewContext(options, status);
  check(c, status, 'TensorFlow context');
  c.TFE_DeleteContextOptions(options);
  const devices = listDevices(c, context, status);
  const gpu = devices.find(({type}) => type === 'GPU');
  const accelerator = gpu ? gpu.name.slice(gpu.name.indexOf('/device:')) : null;
  return {c, context, status, version: c.TF_Version(), devices, accelerator, programs};
}

/**
 * Throws what a status says, if it says anything.
 *
 * @throws EnvironmentError when memory ran out; TensorFlowError otherwise.
 */
export function check(c: CApi, status: Pointer, action: string): void {
  const code = c.TF_GetCode(status);
  if (code === 0) return;
  const message = `${action}: ${c.TF_Message(status)}`;
  if (message.includes('No space left on device')) {
    throw new EnvironmentError(`The disk is full: ${firstLine(message)}`, {cause: new TensorFlowError(message, code)});
  }
  if (code === RESOURCE_EXHAUSTED) {
    throw new EnvironmentError(`Out of memory in ${firstLine(message)}`, {
      hint: 'Lower train.batch.sequences or data.sequenceLength.',
      cause: new TensorFlowError(message, code),
    });
  }
  throw new TensorFlowError(message, code);
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}

/**
 * Settings TensorFlow reads once, when its library is loaded or first allocates; a person's own values win.
 *
 * Its plain processor allocator gives every large buffer back to the system, and page faults then took a sixth of a
 * training step (docs/log.md); the pooled one keeps them. Its limit is only the size of the pool's address space.
 * What it logs as an error is told by a status, too; XLA takes two of its own tuning words for features that this
 * processor lacks, in kilobytes for every program that it finds kept.
 */
function setEnvironment(): void {
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '3';
  process.env.TF_CPU_ALLOCATOR_USE_BFC ??= 'true';
  process.env.TF_CPU_BFC_MEM_LIMIT_IN_MB ??= String(Math.max(MIN_POOL_MB, Math.ceil(totalmem() / 2 ** 20)));
}

/** Lets XLA keep its programs, if they can be kept; returns where. */
function keepPrograms(folder: string, threads: number): string | null {
  const programs = programFolder({library: join(folder, LIBRARY_FILES[1]), threads}, process.env);
  if (programs) process.env.TF_XLA_FLAGS = programFlags(programs);
  return programs;
}

function listDevices(c: CApi, context: Pointer, status: Pointer): Device[] {
  const list = c.TFE_ContextListDevices(context, status);
  check(c, status, 'list devices');
  const devices = Array.from({length: c.TF_DeviceListCount(list)}, (_, i) => ({
    name: c.TF_DeviceListName(list, i, status),
    type: c.TF_DeviceListType(list, i, status),
  }));
  c.TF_DeleteDeviceList(list);
  return devices;
}
