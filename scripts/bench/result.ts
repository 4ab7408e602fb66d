import {flopsPerToken} from '../../src/model/architecture.js';
import {architectureOf, type Case, type Finetune, type Kind} from './cases.js';
import type {Answer, StepTime} from './protocol.js';
import type {Side} from './side.js';
import {median, pairRatios, type Spread} from './statistics.js';

/** What was measured of one side. */
export interface SideResult {
  readonly name: string;
  readonly version: string;
  /** From the first call to its loss: trace and compilation are in it. */
  readonly firstMs: number;
  /** Median step of each turn. */
  readonly msByRound: readonly number[];
  /** Share of step time outside compiled functions; null where nothing is compiled. */
  readonly outside: number | null;
  /** Most memory resident at any time, and memory resident at the end. */
  readonly peakBytes: number | null;
  readonly residentBytes: number | null;
  /** Model FLOPs a second at the median step. */
  readonly gflops: number;
  /** The same of plain products, by way of computing them. */
  readonly matmulGflops: Readonly<Record<string, number>>;
  /** Rows of the fullest expert of any layer, over the mean; null for dense models. */
  readonly fullest: number | null;
  /** Timed steps with an expert whose rows found no room: a fixed capacity dropped them. */
  readonly overflows: number;
  readonly lastLoss: number;
  /** Most of one core that this side used while another one was timed; null if unknown. */
  readonly idleCores: number | null;
  readonly notes: readonly string[];
}

/** What was measured of one case. */
export interface CaseResult {
  readonly name: string;
  readonly title: string;
  readonly kind: Kind;
  readonly finetune: Finetune;
  readonly sides: readonly SideResult[];
  /** Ours over each other side, turn by turn. */
  readonly ratios: Readonly<Record<string, Spread>>;
}

/** A side with what it answered so far. */
export interface Running {
  readonly side: Side;
  readonly version: string;
  readonly firstMs: number;
  readonly turns: StepTime[][];
  readonly matmulMs: Map<string, number[]>;
  readonly idleCores: number[];
  last: Answer<'steps'> | null;
}

/** Axis of the plain product that speeds are held against. */
export const MATMUL_SIZE = 1024;

/** Sums up a side's turns. @param flops of one step. */
export async function sideResult(runner: Running, flops: number): Promise<SideResult> {
  const {side, version, firstMs, turns, last} = runner;
  const msByRound = turns.map(medianMs);
  const use = await side.use();
  return {
    name: side.name,
    version,
    firstMs,
    msByRound,
    outside: outsideShare(turns.flat()),
    peakBytes: use?.peakBytes ?? null,
    residentBytes: use?.residentBytes ?? null,
    gflops: flops / median(msByRound) / 1e6,
    matmulGflops: matmulGflops(runner.matmulMs),
    fullest: fullestExpert(last?.loads ?? []),
    overflows: turns.flat().filter(({overflow}) => overflow > 0).length,
    lastLoss: last?.steps.at(-1)?.loss ?? Number.NaN,
    idleCores: runner.idleCores.length > 0 ? Math.max(...runner.idleCores) : null,
    notes: last?.notes ?? [],
  };
}

/**
 * FLOPs of the model's own mathematics in one step: padding, recomputation and low-rank terms do not count. Where weights
 * are frozen the products that would give their gradients are left out.
 */
export function flopsOf(one: Case, kind: Kind, finetune: Finetune): number {
  const share = finetune === 'full' ? 1 : 2 / 3;
  return share * flopsPerToken(architectureOf(one, kind), one.sequence) * one.batch * one.sequence;
}

/** Share of all step time outside compiled functions, or null if nothing is compiled. */
export function outsideShare(steps: readonly StepTime[]): number | null {
  let total = 0;
  let outside = 0;
  for (const {ms, insideMs} of steps) {
    if (insideMs === null) return null;
    total += ms;
    outside += ms - insideMs;
  }
  return outside / total;
}

/** The largest share of rows times the number of experts, over all layers; null without MoE layers. */
export function fullestExpert(loads: readonly (readonly number[])[]): number | null {
  if (loads.length === 0) return null;
  return Math.max(...loads.map((layer) => Math.max(...layer) * layer.length));
}

/** Ours, the first, over each other side. */
export function ratiosOf([ours, ...others]: readonly SideResult[]): Record<string, Spread> {
  if (!ours) return {};
  return Object.fromEntries(others.map(({name, msByRound}) => [name, pairRatios(ours.msByRound, msByRound)]));
}

function matmulGflops(msByWay: ReadonlyMap<string, readonly number[]>): Record<string, number> {
  const flops = 2 * MATMUL_SIZE ** 3;
  return Object.fromEntries([...msByWay].map(([way, times]) => [way, flops / median(times) / 1e6]));
}

/** The middle step of a turn. */
export function medianMs(turn: readonly StepTime[]): number {
  return median(turn.map(({ms}) => ms));
}
