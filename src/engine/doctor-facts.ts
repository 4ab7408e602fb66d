import {execFile} from 'node:child_process';
import {existsSync} from 'node:fs';
import {statfs} from 'node:fs/promises';
import {arch, availableParallelism, freemem, platform, totalmem} from 'node:os';
import {dirname, join, resolve} from 'node:path';
import {DowncycleError, describeError} from '../util/errors.js';
import type {GpuFacts, MachineFacts, Space} from './doctor.js';
import {defaultCacheFolder} from './library/cache.js';
import {hasNvidiaDriver, thisHost, unsupportedReason} from './library/host.js';
import type {LibraryLocation} from './library/locate.js';
import {wheelsFor} from './library/versions.js';
import type {EngineInput} from './options.js';
import {startEngine} from './start.js';

/** Milliseconds a program is given to say its version. */
const PATIENCE = 10_000;

/** Looks at this machine and starts the engine that `options` ask for. */
export async function gatherFacts(options: EngineInput = {}): Promise<MachineFacts> {
  const folders = [process.cwd(), defaultCacheFolder(process.env)];
  const [npm, python, pip, cards, disks, start] = await Promise.all([
    output('npm', ['--version']),
    output('python3', ['--version']),
    output('python3', ['-m', 'pip', '--version']),
    output('nvidia-smi', ['--query-gpu=name,driver_version,memory.total', '--format=csv,noheader']),
    Promise.all(folders.map(diskOf)),
    tryEngine(options),
  ]);
  const variant = hasNvidiaDriver() && options.device !== 'cpu' ? 'cuda' : 'cpu';
  return {
    engine: start.engine,
    gpu: {hasDriver: hasNvidiaDriver(), cards: linesOf(cards), missingLibraries: missingBeside(start.location)},
    unsupported: unsupportedReason(thisHost(), variant),
    versions: {
      node: process.versions.node,
      npm: npm?.trim() ?? null,
      python: python?.trim().replace(/^Python /, '') ?? null,
      pip: /^pip (\S+)/.exec(pip ?? '')?.[1] ?? null,
    },
    system: {
      platform: `${platform()} ${arch()}`,
      cores: availableParallelism(),
      memory: {free: process.availableMemory?.() ?? freemem(), total: totalmem()},
    },
    disks,
  };
}

interface Start {
  readonly engine: MachineFacts['engine'];
  readonly location: LibraryLocation | null;
}

async function tryEngine(options: EngineInput): Promise<Start> {
  try {
    const {engine, device, version, precision, location, notes} = await startEngine(options);
    const library = location && {folder: location.folder, source: location.source, variant: location.variant};
    return {engine: {kind: engine, device, version, precision, library, notes}, location};
  } catch (error) {
    if (!(error instanceof DowncycleError)) {
      return {engine: {kind: 'failed', error: describeError(error), todo: 'node scripts/setup.mjs'}, location: null};
    }
    return {engine: {kind: 'failed', error: error.message, todo: error.hint ?? null}, location: null};
  }
}

/** The NVIDIA wheels whose folder is not beside a CUDA build, as pip names them. */
function missingBeside(location: LibraryLocation | null): GpuFacts['missingLibraries'] {
  if (location?.variant !== 'cuda') return null;
  const root = join(dirname(location.folder), 'nvidia');
  const wheels = wheelsFor('cuda', 'x64').map(({name}) => /^nvidia-(.+)-cu12$/.exec(name)?.[1]);
  return wheels.flatMap((part) =>
    part !== undefined && !existsSync(join(root, part.replaceAll('-', '_'))) ? [`nvidia-${part}-cu12`] : [],
  );
}

/** Space on the disk that a folder is on, or would be on. */
async function diskOf(folder: string): Promise<Space & {readonly path: string}> {
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const {bavail, blocks, bsize} = await statfs(existing);
  return {path: folder, free: bavail * bsize, total: blocks * bsize};
}

/** What a program prints; null if it is not there, fails or takes too long. */
function output(program: string, args: readonly string[]): Promise<string | null> {
  return new Promise((done) => {
    execFile(program, [...args], {timeout: PATIENCE}, (error, stdout) => done(error ? null : stdout));
  });
}

function linesOf(text: string | null): string[] {
  return (text ?? '').split('\n').flatMap((line) => (line.trim() ? [line.trim()] : []));
}
