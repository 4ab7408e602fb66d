// XLA's own plan of the memory of a step, made without computing one.
import {type ChildProcessWithoutNullStreams, spawn} from 'node:child_process';
import {once} from 'node:events';
import {rmSync} from 'node:fs';
import {mkdtemp, readdir, readFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {setTimeout} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import type {Precision} from '../engine/precision.js';
import {EnvironmentError, type ErrorRecord, errorOf} from '../util/errors.js';
import {accumulates} from './batch-size.js';
import {waysToFit} from './fit.js';
import type {TrainRun} from './session.js';
import {AFTER_REPORT, REPORT, workBytesOf} from './xla-report.js';

/** What the process that compiles is told, in one line; it ends itself, and takes the folder away, once its input ends. */
export interface PlanOrder {
  readonly run: TrainRun;
  /** Of a batch tensor: 3 where document boundaries are kept, else 2. */
  readonly planes: number;
  /** Where XLA writes its reports. */
  readonly folder: string;
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
  | {readonly kind: 'failed'; readonly error: ErrorRecord};

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

const IS_SOURCE = import.meta.url.endsWith('.ts'); // as for the threads that tokenize
const WORKER = new URL(IS_SOURCE ? './step-plan-worker.ts' : './step-plan-worker.js', import.meta.url);

/**
 * Has XLA plan the memory of a run's step, in a process of its own that is ended before code is made: nothing is computed
 * and no weight is read, so it is exact and takes a part of the time that compiling takes.
 *
 * @param program what that process runs.
 * @throws EnvironmentError if the engine cannot be started, or is wasm, which plans nothing, or the process is killed, as the
 * system does where memory runs out; what stood in the way of compiling.
 */
export async function planStep(run: TrainRun, program: URL = WORKER): Promise<StepPlan> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-plan-'));
  const worker = startWorker(program, folder);
  const order: PlanOrder = {run, planes: run.data.boundaries === 'keep' ? 3 : 2, folder};
  worker.child.stdin.write(`${JSON.stringify(order)}\n`);
  try {
    const names = accumulates(run.train.batch) ? ['train_accumulate', 'train_apply'] : ['train_step'];
    const reports = await waitForReports(folder, names, worker, run);
    return {...engineOf(worker), workBytes: Math.max(...reports.map(workBytesOf))};
  } finally {
    await worker.end();
  }
}

interface PlanWorker {
  readonly child: ChildProcessWithoutNullStreams;
  readonly words: readonly PlanWord[];
  readonly hasEnded: () => boolean;
  /** What it wrote on standard error. */
  readonly complaint: () => string;
  /** Ends it, and removes the folder. */
  readonly end: () => Promise<void>;
}

/** Starts the process that compiles, which writes XLA's reports to `folder`. */
function startWorker(program: URL, folder: string): PlanWorker {
  const dump = `--xla_dump_to=${folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=train_`;
  const env = {...process.env, TF_XLA_FLAGS: '', XLA_FLAGS: `${process.env.XLA_FLAGS ?? ''} ${dump}`.trim()};
  const child = spawn(process.execPath, [...(IS_SOURCE ? ['--import', 'tsx'] : []), fileURLToPath(program)], {env});
  const closed = once(child, 'close');
  const leave = (): void => {
    child.kill('SIGKILL');
    rmSync(folder, {recursive: true, force: true, maxRetries: 3}); // a file may be written while it ends
  };
  process.once('exit', leave);
  const words: PlanWord[] = [];
  createInterface(child.stdout).on('line', (line) => words.push(JSON.parse(line) as PlanWord));
  let [complaint, isClosed] = ['', false];
  child.stdin.on('error', () => undefined); // it ended before it was told: `failure` says how
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  child.once('close', () => {
    isClosed = true;
  });
  const end = async (): Promise<void> => {
    child.kill('SIGKILL');
    await closed;
    process.off('exit', leave);
    leave();
  };
  return {child, words, hasEnded: () => isClosed, complaint: () => complaint, end};
}

/** Milliseconds between two looks for a report. */
const INTERVAL = 100;

async function waitForReports(
  folder: string,
  names: readonly string[],
  worker: PlanWorker,
  run: TrainRun,
): Promise<string[]> {
  for (;;) {
    const isLast = worker.hasEnded();
    const files = await readdir(folder);
    const of = (name: string, end: string) => files.find((file) => file.includes(`.${name}`) && file.endsWith(end));
    const reports = names.flatMap((name) => of(name, REPORT) ?? []);
    const areWhole = names.every((name) => of(name, AFTER_REPORT) !== undefined);
    if (reports.length === names.length && (areWhole || isLast)) {
      return Promise.all(reports.map((file) => readFile(join(folder, file), 'utf8')));
    }
    if (isLast) throw failure(worker, run);
    await setTimeout(INTERVAL);
  }
}

function engineOf({words}: PlanWorker): Omit<StepPlan, 'workBytes'> {
  const engine = words.find((word) => word.kind === 'engine');
  const rate = words.find((word) => word.kind === 'rate');
  if (!engine || engine.device === 'wasm' || !rate) throw new Error('a step was planned on no engine');
  const {device, notes, residentBytes} = engine;
  return {device, notes, residentBytes, flopsPerSecond: rate.flopsPerSecond};
}

function failure({child: {signalCode}, words, complaint}: PlanWorker, run: TrainRun): Error {
  const failed = words.find((word) => word.kind === 'failed');
  if (failed) return errorOf(failed.error);
  if (words.some((word) => word.kind === 'engine' && word.device === 'wasm')) {
    return new EnvironmentError('The wasm engine plans no memory: what a step needs is known only by running it.', {
      hint: 'Fetch TensorFlow with `node scripts/setup.mjs`, and leave engine.device at auto or cpu.',
    });
  }
  if (signalCode === 'SIGKILL') {
    return new EnvironmentError('The process that plans a step was killed, as the system does where memory runs out.', {
      hint: waysToFit(run),
    });
  }
  const how = signalCode === null ? '' : ` by ${signalCode}`;
  return new Error(`the process that plans a step ended${how} without a plan: ${complaint()}`);
}
