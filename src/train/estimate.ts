// What a run will need of a machine, before it begins.
import {execFile} from 'node:child_process';
import {freemem} from 'node:os';
import {promisify} from 'node:util';
import {hasNvidiaDriver} from '../engine/library/host.js';
import {type Architecture, flopsPerToken} from '../model/architecture.js';
import {type Capacity, expertRoom} from '../model/capacity.js';
import {leavesOf} from '../model/parameters.js';
import {EnvironmentError} from '../util/errors.js';
import {numElements} from '../util/shape.js';
import {accumulates, passesOf} from './batch-size.js';
import {type HeldTerm, heldTerms, outlineOf, type RunOutline} from './outline.js';
import type {TrainRun} from './session.js';
import {planStep, type StepPlan} from './step-plan.js';

/** Something that takes memory, most of it at the moment the run needs most. */
export interface MemoryTerm {
  readonly what: HeldTerm['what'] | 'activations, gradients, logits' | 'Node, TensorFlow, its compiler';
  readonly bytes: number;
}

/** How long a run takes: from the operations of a step and the speed of one matrix product. */
export interface TimeEstimate {
  /** Of the last step, whose passes are most. */
  readonly flopsPerStep: number;
  readonly flopsPerSecond: number;
  readonly secondsPerStep: number;
  /** Of all steps; validation and checkpoints come on top. */
  readonly seconds: number;
}

/** What a run will need, and what there is. */
export interface RunEstimate {
  readonly terms: readonly MemoryTerm[];
  /** The most that is held at once. */
  readonly bytes: number;
  readonly free: {readonly of: 'memory' | 'GPU memory'; readonly bytes: number};
  /** Null if that cannot fit whatever a step needs: then no step is planned, and its bytes are the least there could be. */
  readonly time: TimeEstimate | null;
  readonly notes: readonly string[];
}

/**
 * What XLA's compiler and Node's heap still hold when a step runs, after the programs of validation and step were made: it
 * grows with the layers up to a limit, since freed memory goes back to the system, and is at that limit with experts. An
 * accumulated step has a second program. Measured on models of 4, 8 and 24 layers (docs/log.md).
 */
function compilerBytes({state: {architecture}}: RunOutline, hasSums: boolean): number {
  const {ffn} = architecture;
  const programs = ffn.some(({kind}) => kind === 'moe') ? 600 : Math.min(560, 150 + 37 * ffn.length);
  return (programs + (hasSums ? 100 : 0)) * 2 ** 20;
}

/** Share of the speed of one large product that a step reaches: 63 to 88% in docs/log.md. */
const REACHED = 0.7;

/**
 * Works out the memory and time of a run. No weight is read and no step computed: what is held comes from the shapes of
 * what trains, the rest from XLA's own plan of the step; on a GPU the terms are those of its memory.
 *
 * @throws EnvironmentError as {@link planStep}; ModelError for a damaged config.json; ConfigError for a finetune the model
 * does not fit.
 */
export async function estimateRun(run: TrainRun): Promise<RunEstimate> {
  const outline = await outlineOf(run);
  const held = heldTerms(outline);
  const own = freeMemory();
  const least = [...held, {what: 'activations, gradients, logits', bytes: leastWork(run, outline)} as const];
  const isOnGpu = run.engine.device !== 'cpu' && hasNvidiaDriver();
  if (sumOf(least) > own && !isOnGpu) {
    return {terms: least, bytes: sumOf(least), free: {of: 'memory', bytes: own}, time: null, notes: []};
  }
  const plan = await planStep(run);
  const {device, notes, residentBytes, workBytes} = plan;
  const compiler = compilerBytes(outline, accumulates(run.train.batch));
  const terms: MemoryTerm[] = [
    ...held,
    {what: 'activations, gradients, logits', bytes: workBytes},
    ...(device === 'cpu' ? [{what: 'Node, TensorFlow, its compiler', bytes: residentBytes + compiler} as const] : []),
  ];
  const free = device === 'cpu' ? {of: 'memory', bytes: own} : {of: 'GPU memory', bytes: await freeGpuMemory()};
  return {terms, bytes: sumOf(terms), free, time: timeOf(run, outline, plan), notes} as RunEstimate;
}

/** The inputs of all layers are kept in any case. XLA would take long to plan what is far too large. */
function leastWork({train, data}: TrainRun, {state}: RunOutline): number {
  const {ffn, width} = state.architecture;
  return train.batch.sequences * data.sequenceLength * width * ffn.length * Float32Array.BYTES_PER_ELEMENT;
}

/** @throws EnvironmentError that says what to lower, if the run does not fit into the machine. */
export function requireFit({bytes, free, terms}: RunEstimate, {train, data}: Pick<TrainRun, 'train' | 'data'>): void {
  if (bytes <= free.bytes) return;
  const [need, have] = [bytes, free.bytes].map((value) => `${(value / 1e9).toFixed(1)} GB`);
  const {batch, recompute, finetune, optimizer} = train;
  const work = terms.find(({what}) => what === 'activations, gradients, logits')?.bytes ?? 0;
  const ways = [
    ...(work > 0 && batch.sequences > 1 ? [`lower train.batch.sequences (${batch.sequences})`] : []),
    ...(work > 0 ? [`lower data.sequenceLength (${data.sequenceLength})`] : []),
    ...(work > 0 && recompute === 'none' ? ['set train.recompute to layer'] : []),
    ...(finetune.kind === 'full' ? ['train low-rank terms only (train.finetune: {kind: lora, ...})'] : []),
    ...(finetune.kind === 'full' && optimizer.kind === 'adamw' ? ['set train.optimizer.kind to adafactor'] : []),
    'take a machine with more',
  ];
  const hint = `${ways.slice(0, -1).join(', ')} or ${ways.at(-1)}.`.replace(/^ or /, '');
  throw new EnvironmentError(`The run needs ${need}, there are ${have} of ${free.of} free.`, {
    hint: hint.charAt(0).toUpperCase() + hint.slice(1),
  });
}

function timeOf(run: TrainRun, {state, teacher}: RunOutline, {flopsPerSecond}: StepPlan): TimeEstimate {
  const {batch, steps, capacity, recompute} = run.train;
  const {sequenceLength} = run.data;
  const tokens = batch.sequences * sequenceLength;
  // 6 operations a weight and token: 2 forward, 2 for what came before, 2 for the weight where it trains.
  const factor = (4 + 2 * trainedShare(state) + (recompute === 'layer' ? 2 : 0)) / 6;
  const own = flopsPerToken(state.architecture, sequenceLength) + paddingFlops(state.architecture, capacity, tokens);
  const taught = teacher ? flopsPerToken(teacher.architecture, sequenceLength) / 3 : 0;
  const perPass = tokens * (own * factor + taught);
  const numPasses = Array.from({length: steps}, (_, i) => passesOf(batch, i + 1)).reduce((sum, n) => sum + n, 0);
  const secondsPerPass = perPass / flopsPerSecond / REACHED;
  const last = passesOf(batch, steps);
  return {
    flopsPerStep: perPass * last,
    flopsPerSecond,
    secondsPerStep: secondsPerPass * last,
    seconds: secondsPerPass * numPasses,
  };
}

function trainedShare({trained, parameters}: RunOutline['state']): number {
  const size = (list: readonly {readonly shape: readonly number[]}[]): number =>
    list.reduce((sum, {shape}) => sum + numElements(shape), 0);
  return Math.min(1, size(trained) / size(leavesOf(parameters)));
}

/** Operations a token spent on rows of experts that are empty, or on experts that were not chosen. */
function paddingFlops({ffn, width}: Architecture, capacity: Capacity, tokens: number): number {
  const flops = ffn.map((layout) => {
    if (layout.kind !== 'moe') return 0;
    const room = expertRoom(capacity, tokens, layout);
    const {experts, topK, expertWidth} = layout;
    const rows = room === 'all' ? experts * tokens : experts * room.rows + room.blocks * room.blockRows;
    return 18 * width * expertWidth * Math.max(0, rows / tokens - topK);
  });
  return flops.reduce((sum, value) => sum + value, 0);
}

/** What a run can have: what is free, and what this process gives back when it ends. */
function freeMemory(): number {
  return (process.availableMemory?.() ?? freemem()) + process.memoryUsage.rss();
}

async function freeGpuMemory(): Promise<number> {
  const args = ['--query-gpu=memory.free', '--format=csv,noheader,nounits'];
  const {stdout} = await promisify(execFile)('nvidia-smi', args).catch((cause: unknown) => {
    throw new EnvironmentError('nvidia-smi does not say how much GPU memory is free.', {
      hint: 'Run `downcycle doctor` to see what is missing.',
      cause,
    });
  });
  return Number(stdout.split('\n', 1)[0]) * 2 ** 20;
}

function sumOf(terms: readonly {readonly bytes: number}[]): number {
  return terms.reduce((sum, {bytes}) => sum + bytes, 0);
}
