import {spawn} from 'node:child_process';
import {EventEmitter, once} from 'node:events';
import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {onTestFinished} from 'vitest';
import {evaluationBatches} from '../../src/data/evaluation.js';
import {type DataOptions, dataSchema} from '../../src/data/options.js';
import {closeShards, ensureShards} from '../../src/data/shards.js';
import type {EngineInput} from '../../src/engine/options.js';
import {readRunLog} from '../../src/format/run-log.js';
import type {StepRecord} from '../../src/format/run-record.js';
import {type Architecture, type FfnLayout, PLAIN, SOFTMAX_ROUTING} from '../../src/model/architecture.js';
import {initialValues} from '../../src/model/init.js';
import {createLossMeter} from '../../src/model/loss-meter.js';
import {loadModel} from '../../src/model/model.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {saveModel} from '../../src/model/save.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import type {TrainEvent} from '../../src/train/event.js';
import {optimizerSchema} from '../../src/train/optimizer/options.js';
import {type TrainInput, trainSchema} from '../../src/train/options.js';
import {ratesOf} from '../../src/train/rates.js';
import type {TrainRun} from '../../src/train/session.js';
import type {StateOptions} from '../../src/train/state.js';
import type {StepRates} from '../../src/train/step.js';
import type {RunnerOptions} from '../../src/train/step-runner.js';
import {modulePath, NODE_OPTIONS} from '../support/program.js';

/** The byte-level fixture: 274 ids. */
export const TOKENIZER = 'test/fixtures/tokenizer/byte-level';
export const TEXT = 'test/fixtures/train/scripture.txt';
export const SEQUENCE = 32;

const WIDE: FfnLayout = {kind: 'dense', width: 64};
export const DENSE: Architecture = tiny([WIDE, WIDE]);
/** A dense layer, then one whose every expert computes every token: with so few of them that costs least. */
export const MOE: Architecture = tiny([WIDE, experts(4, 2)]);
/** One layer that sends each expert its rows, as long as an expert has less than half of them. */
export const ROUTED: Architecture = tiny([experts(8, 2)]);

/** A layer of `experts` and a shared one, wide enough for rows to be worth sending around. */
export function experts(experts: number, topK: number): Extract<FfnLayout, {kind: 'moe'}> {
  return {kind: 'moe', experts, topK, expertWidth: 64, sharedWidth: 16, selectionBias: false, router: 'linear'};
}

/** A model of width 32. */
export function tiny(ffn: readonly FfnLayout[]): Architecture {
  return {
    family: 'llama',
    ...PLAIN,
    vocab: 274,
    width: 32,
    heads: 2,
    kvHeads: 1,
    headDim: 16,
    contextLength: 64,
    normEps: 1e-5,
    ropeTheta: 10000,
    tied: true,
    ffn,
    routing: SOFTMAX_ROUTING,
  };
}

type OptimizerInput = NonNullable<TrainInput['optimizer']>;

/** A folder that is gone after the test. */
export async function tempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-train-'));
  onTestFinished(() => rm(folder, {recursive: true, force: true}));
  return folder;
}

/** Saves a model with fresh weights at `path`; `change` may alter the values of a parameter. */
export async function writeModel(
  path: string,
  architecture: Architecture,
  change: (spec: ParameterSpec, values: Float32Array) => Float32Array = (_, values) => values,
): Promise<string> {
  await saveModel(path, {
    architecture,
    dtype: 'F32',
    tokenizerFrom: TOKENIZER,
    read: (spec) => change(spec, initialValues(spec, architecture, 7)),
  });
  return path;
}

/** What a test says of its run; the rest is small. */
export interface RunChanges {
  readonly out?: string;
  readonly model?: string;
  readonly mode?: TrainRun['mode'];
  readonly allowsChange?: boolean;
  readonly train?: TrainInput;
  readonly data?: Partial<DataOptions>;
  readonly engine?: EngineInput;
  readonly hash?: string;
}

/** A run in `folder` of its model `model`: 6 steps of 8 x 32 tokens. */
export function tinyRun(folder: string, changes: RunChanges = {}): TrainRun {
  return {
    name: 'tiny',
    arm: 'tiny',
    model: join(folder, changes.model ?? 'model'),
    out: join(folder, changes.out ?? 'run'),
    shards: join(folder, 'shards'),
    seed: 7,
    data: {
      ...dataSchema.parse({
        sequenceLength: SEQUENCE,
        sources: [{name: 'scripture', path: TEXT}],
        validation: {share: 0.2},
      }),
      ...changes.data,
    },
    train: tinyTrain(changes.train),
    engine: changes.engine ?? {device: 'cpu'},
    config: {yaml: 'name: tiny\n', hash: changes.hash ?? 'c0ffee'},
    mode: changes.mode ?? 'new',
    allowsChange: changes.allowsChange ?? false,
  };
}

/** Checked `train` options over small defaults. */
export function tinyTrain(changes: TrainInput = {}): TrainRun['train'] {
  return trainSchema.parse({
    steps: 6,
    batch: {sequences: 8},
    optimizer: {lr: 3e-3},
    schedule: {kind: 'constant'},
    validation: {every: 3, maxRows: 16},
    checkpoint: {every: 0},
    ...changes,
  });
}

/** Lines of a run's log of the kinds asked for, each cut before its fields of the wall clock. */
export async function exactLines(run: string, kinds: readonly string[] = ['step', 'eval']): Promise<string[]> {
  const lines = (await readFile(join(run, 'log.jsonl'), 'utf8')).trimEnd().split('\n');
  return lines
    .filter((line) => kinds.some((kind) => line.startsWith(`{"kind":"${kind}"`)))
    .map((line) => line.replace(/,"seconds":.*$/, ''));
}

/** A training in a process of its own. */
export interface Child {
  /** Resolves at the first event that fits. */
  until(fits: (event: TrainEvent) => boolean): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  readonly pid: number | undefined;
  readonly ended: Promise<{readonly code: number | null; readonly signal: string | null; readonly output: string}>;
}

/** What {@link startChild} runs, and when it is to die as if by `kill -9`. */
export interface ChildOrder {
  readonly run: TrainRun;
  /** After this step's line was logged. */
  readonly dieAfterStep?: number;
  /** When a file whose path matches is opened for writing; or once a rename to such a path is done. */
  readonly dieAtOpen?: string;
  readonly dieAfterRename?: string;
  /** At the so manieth change of a file in the folder of the run or beside it, from 0; a write is done by half. */
  readonly dieAtChange?: number;
}

/** Starts `train` in a new process: child.mjs. */
export function startChild(order: ChildOrder): Child {
  const args = [...NODE_OPTIONS, 'test/train/child.mjs', modulePath('train/run'), JSON.stringify(order)];
  const child = spawn(process.execPath, args, {stdio: ['ignore', 'pipe', 'pipe']});
  const events: TrainEvent[] = [];
  let output = '';
  const seen = new EventEmitter();
  createInterface(child.stdout).on('line', (line) => {
    output += `${line}\n`;
    if (line.startsWith('{')) events.push(JSON.parse(line) as TrainEvent);
    seen.emit('event');
  });
  child.stderr.on('data', (text) => {
    output += String(text);
  });
  const ended = new Promise<Awaited<Child['ended']>>((resolve) => {
    child.on('close', (code, signal) => {
      seen.emit('event');
      resolve({code, signal, output});
    });
  });
  const until = async (fits: (event: TrainEvent) => boolean): Promise<void> => {
    while (!events.some(fits)) {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`the child ended first: ${output}`);
      await once(seen, 'event');
    }
  };
  return {until, kill: (signal) => child.kill(signal), pid: child.pid, ended};
}

/** The runs whose losses are kept in test/losses. */
export const RECORDED = {
  dense: {architecture: DENSE, train: {steps: 20, checkpoint: {every: 6}}},
  moe: {
    architecture: ROUTED,
    train: {steps: 20, checkpoint: {every: 6}, optimizer: {lr: 1e-3}, balance: {weight: 0.3}},
  },
} as const;

/** The columns of a recorded run: loss, balance loss, z-loss, gradient norm. */
export function columnsOf({loss, auxLoss, zLoss, gradNorm}: StepRecord): number[] {
  return [loss, auxLoss, zLoss, gradNorm].map((value) => value ?? Number.NaN);
}

/** Steps of test/losses/<name>.txt, each with the columns of {@link columnsOf}. */
export async function recordedLosses(name: keyof typeof RECORDED): Promise<number[][]> {
  const lines = (await readFile(`test/losses/${name}.txt`, 'utf8')).trimEnd().split('\n');
  return lines.filter((line) => !line.startsWith('#')).map((line) => line.split(' ').slice(1).map(Number));
}

/** The step records of a run. */
export async function stepsOf(run: string): Promise<StepRecord[]> {
  return (await readRunLog(join(run, 'log.jsonl'))).filter((record): record is StepRecord => record.kind === 'step');
}

/** Listens to a run and ends it as a kill would, after a step. */
export function crashAfter(step: number): (event: TrainEvent) => void {
  return (event) => {
    if (event.kind === 'step' && event.step === step) throw new Error('crash');
  };
}

/** Training of a whole model from nothing stored. */
export const FRESH: StateOptions = {
  finetune: {kind: 'full'},
  optimizer: {kind: 'adamw', betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1},
  accumulates: false,
  movesBiases: false,
  seed: 7,
  stored: () => Promise.resolve(null),
};

/** What a runner is told where a test says nothing else. */
export const PLAIN_STEP: RunnerOptions = {
  optimizer: FRESH.optimizer,
  ...{
    clip: 0,
    balance: {kind: 'none', zLoss: 0},
    precision: 'float32',
    capacity: 'dropless',
    dropout: 0,
    teacher: null,
  },
  sequenceLength: SEQUENCE,
};

/** Rates of step t, the same learning rate everywhere. */
export function ratesAt(lr: number, t: number, optimizer: OptimizerInput = {}): StepRates {
  return ratesOf(optimizerSchema.parse({lr, ...optimizer}), lr, t);
}

/** What random numbers of a step hang on where none are drawn. */
export const SEED = {seed: 7, step: 1} as const;

/** Loss of a model folder on what a run validates on. */
export async function validationLoss(path: string, {data, shards, train}: TrainRun): Promise<number> {
  const model = await loadModel(path);
  const sources = await ensureShards(data, await loadTokenizer(path), shards);
  const meter = createLossMeter(model, data.sequenceLength, 'float32');
  try {
    const rows = evaluationBatches(sources[0]!.valid!, train.batch.sequences, train.validation.maxRows);
    return (await meter.measure(rows)).loss;
  } finally {
    meter.dispose();
    model.dispose();
    await closeShards(sources);
  }
}
