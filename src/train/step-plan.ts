// XLA's own plan of the memory of a step, made without computing one.
import {type ChildProcessWithoutNullStreams, spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {setTimeout} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import type {Precision} from '../engine/precision.js';
import {EnvironmentError} from '../util/errors.js';
import {accumulates} from './batch-size.js';
import type {TrainRun} from './session.js';

/** What the process that compiles is told. */
export interface PlanOrder {
  readonly run: TrainRun;
  /** Of a batch tensor: 3 where document boundaries are kept, else 2. */
  readonly planes: number;
}

/** What that process says, a line each. */
export type PlanWord =
  | {
      readonly kind: 'engine';
      readonly device: 'cpu' | 'cuda' | 'wasm';
      readonly precision: Precision;
      readonly notes: readonly string[];
      /** Of the process once the engine runs. */
      readonly residentBytes: number;
    }
  | {readonly kind: 'rate'; readonly flopsPerSecond: number}
  | {readonly kind: 'failed'; readonly message: string; readonly hint?: string};

/** What a step needs of the machine besides what is held through all steps. */
export interface StepPlan {
  readonly device: 'cpu' | 'cuda';
  readonly notes: readonly string[];
  /** Node and TensorFlow before a model. */
  readonly residentBytes: number;
  /** Activations, gradients and logits at the moment they are most, by XLA's buffer assignment. */
  readonly workBytes: number;
  /** Measured on a product of square matrices, operations a second. */
  readonly flopsPerSecond: number;
}

/**
 * Has XLA plan the memory of a run's step, in a process of its own that is ended before code is made: nothing is computed
 * and no weight is read, so it is exact and takes a part of the time that compiling takes.
 *
 * @throws EnvironmentError if the engine cannot be started, or is wasm, which plans nothing.
 */
export async function planStep(run: TrainRun): Promise<StepPlan> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-plan-'));
  const worker = startWorker(folder);
  worker.child.stdin.end(JSON.stringify({run, planes: run.data.boundaries === 'keep' ? 3 : 2} satisfies PlanOrder));
  try {
    const names = accumulates(run.train.batch) ? ['train_accumulate', 'train_apply'] : ['train_step'];
    const reports = await waitForReports(folder, names, worker);
    return {...engineOf(worker), workBytes: Math.max(...reports.map(workBytesOf))};
  } finally {
    await worker.end();
    await rm(folder, {recursive: true, force: true});
  }
}

interface PlanWorker {
  readonly child: ChildProcessWithoutNullStreams;
  readonly words: readonly PlanWord[];
  readonly hasEnded: () => boolean;
  /** What it wrote on standard error. */
  readonly complaint: () => string;
  readonly end: () => Promise<void>;
}

/** Starts the process that compiles, which writes XLA's reports to `folder`. */
function startWorker(folder: string): PlanWorker {
  const isSource = import.meta.url.endsWith('.ts'); // as for the threads that tokenize
  const path = fileURLToPath(new URL(isSource ? './step-plan-worker.ts' : './step-plan-worker.js', import.meta.url));
  const dump = `--xla_dump_to=${folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=train_`;
  const env = {...process.env, TF_XLA_FLAGS: '', XLA_FLAGS: `${process.env.XLA_FLAGS ?? ''} ${dump}`.trim()};
  const child = spawn(process.execPath, [...(isSource ? ['--import', 'tsx'] : []), path], {env});
  const closed = once(child, 'close');
  const kill = (): unknown => child.kill('SIGKILL');
  process.once('exit', kill);
  const words: PlanWord[] = [];
  createInterface(child.stdout).on('line', (line) => words.push(JSON.parse(line) as PlanWord));
  let [complaint, isClosed] = ['', false];
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  child.once('close', () => {
    isClosed = true;
  });
  const end = async (): Promise<void> => {
    process.off('exit', kill);
    kill();
    await closed;
  };
  return {child, words, hasEnded: () => isClosed, complaint: () => complaint, end};
}

/** Milliseconds between two looks for a report. */
const INTERVAL = 100;

async function waitForReports(folder: string, names: readonly string[], worker: PlanWorker): Promise<string[]> {
  for (;;) {
    const isLast = worker.hasEnded();
    const files = await readdir(folder);
    const found = names.map((name) => files.find((file) => file.includes(`.${name}`) && file.endsWith(REPORT)));
    const texts = await Promise.all(found.map(async (file) => (file ? readFile(join(folder, file), 'utf8') : '')));
    if (texts.every(isWhole)) return texts;
    if (isLast) throw failure(worker);
    await setTimeout(INTERVAL);
  }
}

const REPORT = 'memory-usage-report.txt';

/** The report may be read while it is written: its list has an end. */
function isWhole(text: string): boolean {
  return /\n\n|The rest \d+ allocations/.test(text.slice(text.indexOf('----')));
}

/** Of one program, what is neither held before it nor after it. */
export function workBytesOf(report: string): number {
  const total = Number(/^Total bytes used: (\d+)/.exec(report)?.[1]);
  const parameters = [...report.matchAll(/; allocation \d+: size ([\d.]+)(B|KiB|MiB|GiB|TiB), parameter /g)];
  return parameters.reduce((rest, [, size, unit]) => rest - Number(size) * UNITS[unit as keyof typeof UNITS], total);
}

const UNITS = {B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40} as const;

function engineOf({words}: PlanWorker): Omit<StepPlan, 'workBytes'> {
  const engine = words.find((word) => word.kind === 'engine');
  const rate = words.find((word) => word.kind === 'rate');
  if (!engine || engine.device === 'wasm' || !rate) throw new Error('a step was planned on no engine');
  const {device, notes, residentBytes} = engine;
  return {device, notes, residentBytes, flopsPerSecond: rate.flopsPerSecond};
}

function failure({words, complaint}: PlanWorker): Error {
  const failed = words.find((word) => word.kind === 'failed');
  if (failed) return new EnvironmentError(failed.message, failed.hint === undefined ? {} : {hint: failed.hint});
  if (words.some((word) => word.kind === 'engine' && word.device === 'wasm')) {
    return new EnvironmentError('The wasm engine plans no memory: what a step needs is known only by running it.', {
      hint: 'Fetch TensorFlow with `node scripts/setup.mjs`, and leave engine.device at auto or cpu.',
    });
  }
  return new Error(`the process that plans a step ended without a plan: ${complaint()}`);
}
