// What memory and time a run will need, before it begins.
import {hasNvidiaDriver} from '../engine/library/host.js';
import {readArchitecture} from '../model/read-architecture.js';
import {accumulates} from './batch-size.js';
import {type TimeEstimate, timeOf} from './estimate-time.js';
import {freeGpuMemory, freeMemory} from './free-memory.js';
import {type HeldTerm, heldTerms, outlineOf, type RunOutline} from './outline.js';
import type {TrainRun} from './session.js';
import {planStep} from './step-plan.js';
import {requireTrainable} from './trainable-run.js';

/** Something that takes memory, most of it at the moment the run needs most. */
export interface MemoryTerm {
  readonly what: HeldTerm['what'] | 'activations, gradients, logits' | 'Node, TensorFlow, its compiler';
  readonly bytes: number;
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
 * What XLA's compiler and Node's heap still hold when a step runs, after the programs of validation and step were made. An
 * accumulated step has a second program. Fitted to models of 1 to 24 layers, dense and with experts (docs/log.md).
 */
function compilerBytes({state}: RunOutline, hasSums: boolean): number {
  return (270 + 20 * state.architecture.ffn.length + (hasSums ? 50 : 0)) * 2 ** 20;
}

/**
 * Works out the memory and time of a run. No weight is read and no step computed: what is held comes from the shapes of
 * what trains, the rest from XLA's own plan of the step; on a GPU the terms are those of its memory.
 *
 * @throws EnvironmentError as {@link planStep}; ModelError for a damaged config.json; what {@link requireTrainable} throws.
 */
export async function estimateRun(run: TrainRun): Promise<RunEstimate> {
  await requireTrainable(run, {path: run.model, architecture: await readArchitecture(run.model)});
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
  return {terms, bytes: sumOf(terms), free, time: timeOf(run, outline, plan.flopsPerSecond), notes} as RunEstimate;
}

/** The inputs of all layers are kept in any case. XLA would take long to plan what is far too large. */
function leastWork({train, data}: TrainRun, {state}: RunOutline): number {
  const {ffn, width} = state.architecture;
  return train.batch.sequences * data.sequenceLength * width * ffn.length * Float32Array.BYTES_PER_ELEMENT;
}

function sumOf(terms: readonly {readonly bytes: number}[]): number {
  return terms.reduce((sum, {bytes}) => sum + bytes, 0);
}
