import type {Variant} from './library/versions.js';

/** What was found out about this machine. */
export interface MachineFacts {
  /** The engine that started, or why none did. */
  readonly engine: StartedEngine | {readonly kind: 'failed'; readonly error: string; readonly todo: string | null};
  readonly gpu: GpuFacts;
  /** Why TensorFlow's libraries cannot run here; null if they can. */
  readonly unsupported: string | null;
  /** Null where the program is not there. */
  readonly versions: Readonly<Record<'node' | 'npm' | 'python' | 'pip', string | null>>;
  readonly system: {readonly platform: string; readonly cores: number; readonly memory: Space};
  /** Free and whole space of the disks of the working directory and of the cache. */
  readonly disks: readonly (Space & {readonly path: string})[];
}

/** An engine that runs. */
interface StartedEngine {
  readonly kind: 'tensorflow' | 'wasm';
  readonly device: 'cpu' | 'cuda' | 'wasm';
  readonly version: string;
  readonly precision: string;
  /** Where TensorFlow's libraries are and how they were found; null on wasm. */
  readonly library: {readonly folder: string; readonly source: string; readonly variant: Variant} | null;
  readonly notes: readonly string[];
}

/** What there is of NVIDIA. */
export interface GpuFacts {
  /** Whether the driver's device files are there. */
  readonly hasDriver: boolean;
  /** `NVIDIA H200, 580.65, 143771 MiB`; empty if nvidia-smi is not there or finds none. */
  readonly cards: readonly string[];
  /** NVIDIA libraries that the CUDA build needs and that are not beside it; null if that build is not the one that was found. */
  readonly missingLibraries: readonly string[] | null;
}

/** Bytes. */
export interface Space {
  readonly free: number;
  readonly total: number;
}

/** One line of a diagnosis, and what to type if something is to be done. */
export interface Finding {
  readonly topic: string;
  readonly state: 'good' | 'warning' | 'bad';
  readonly text: string;
  readonly todo: string | null;
}

const FETCH = 'node scripts/setup.mjs';
const FETCH_CUDA = 'node scripts/setup.mjs --cuda';
/** Below these, in bytes, a machine is likely to fail in the middle of something. */
const LITTLE_MEMORY = 2e9;
const LITTLE_DISK = 2e9;

/** Says what runs on a machine, why, what is missing and what to type. */
export function diagnose(facts: MachineFacts): Finding[] {
  const {versions, system, disks} = facts;
  return [
    engineFinding(facts),
    ...engineNotes(facts),
    gpuFinding(facts),
    good('node', `${versions.node ?? 'unknown'}, npm ${versions.npm ?? 'not found'}`),
    pythonFinding(facts),
    memoryFinding(system),
    ...disks.map(diskFinding),
  ];
}

function engineFinding({engine}: MachineFacts): Finding {
  switch (engine.kind) {
    case 'failed':
      return bad('engine', engine.error, engine.todo);
    case 'wasm':
      return {
        topic: 'engine',
        state: 'warning',
        text: `WebAssembly ${engine.version}, several times slower`,
        todo: FETCH,
      };
    case 'tensorflow': {
      const {version, device, precision, library} = engine;
      const where = library ? `, from ${library.folder} (${SOURCES[library.source] ?? library.source})` : '';
      return good('engine', `TensorFlow ${version} on ${device}, ${precision}${where}`);
    }
  }
}

const SOURCES: Readonly<Record<string, string>> = {
  config: 'engine.library',
  environment: 'DOWNCYCLE_TENSORFLOW',
  python: "python3's own",
  cache: 'fetched by set-up',
};

function engineNotes({engine, unsupported}: MachineFacts): Finding[] {
  const notes = engine.kind === 'failed' ? [] : engine.notes;
  const why = engine.kind === 'wasm' && unsupported !== null ? [unsupported] : notes;
  return why.map((text) => ({topic: 'engine', state: 'warning', text, todo: null}));
}

/** The chain from card to computation, told at its first broken link. */
function gpuFinding({engine, gpu, unsupported}: MachineFacts): Finding {
  const {hasDriver, cards, missingLibraries} = gpu;
  const isCuda = engine.kind !== 'failed' && engine.device === 'cuda';
  if (isCuda) return good('gpu', `${cards.join('; ') || 'found'}, in use`);
  if (!hasDriver) return withoutDriver(missingLibraries !== null);
  const name = cards.join('; ') || 'an NVIDIA driver';
  if (unsupported !== null) return bad('gpu', `${name} is here, but: ${unsupported}`, null);
  if (missingLibraries === null) return bad('gpu', `${name} is here, TensorFlow's CUDA build is not`, FETCH_CUDA);
  if (missingLibraries.length > 0) {
    const which = missingLibraries.join(', ');
    return bad('gpu', `${name} is here, but the CUDA build lacks ${which} beside it`, FETCH_CUDA);
  }
  if (cards.length === 0) return bad('gpu', 'the driver answers, but shows no card', 'nvidia-smi');
  return bad(
    'gpu',
    `${name} is here with the CUDA build, but is not in use: too old a driver, or hidden`,
    'nvidia-smi',
  );
}

function withoutDriver(hasCudaBuild: boolean): Finding {
  if (!hasCudaBuild) return good('gpu', 'none: there is no NVIDIA driver (/dev/nvidiactl)');
  const text =
    "TensorFlow's CUDA build is here and loads, but there is no NVIDIA driver (/dev/nvidiactl): no GPU computes";
  return {
    topic: 'gpu',
    state: 'warning',
    text,
    todo: 'install the NVIDIA driver, or start the container with --gpus all',
  };
}

function pythonFinding({versions: {python, pip}, engine}: MachineFacts): Finding {
  const isNeeded = engine.kind !== 'tensorflow';
  if (python && pip) return good('python', `${python}, pip ${pip}`);
  const text = python ? `${python}, without pip` : 'no python3 on the PATH';
  if (!isNeeded) return good('python', `${text}; not needed, TensorFlow is here`);
  const todo = python ? 'install pip, e.g. the package python3-pip' : 'install Python 3 with pip';
  return {topic: 'python', state: 'warning', text: `${text}; TensorFlow is fetched with pip`, todo};
}

function memoryFinding({platform, cores, memory}: MachineFacts['system']): Finding {
  const text = `${platform}, ${cores} cores, ${gigabytes(memory.free)} of ${gigabytes(memory.total)} memory free`;
  return {topic: 'machine', state: memory.free < LITTLE_MEMORY ? 'warning' : 'good', text, todo: null};
}

function diskFinding({path, free, total}: MachineFacts['disks'][number]): Finding {
  const text = `${path}: ${gigabytes(free)} of ${gigabytes(total)} free`;
  const isLittle = free < LITTLE_DISK;
  return {topic: 'disk', state: isLittle ? 'warning' : 'good', text, todo: isLittle ? 'free some space' : null};
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(1)} GB`;
}

function good(topic: string, text: string): Finding {
  return {topic, state: 'good', text, todo: null};
}

function bad(topic: string, text: string, todo: string | null): Finding {
  return {topic, state: 'bad', text, todo};
}
