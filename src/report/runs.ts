import {basename, resolve} from 'node:path';
import type {EndRecord, EvalRecord, RunRecord, StepRecord} from '../format/run-record.js';
import type {ArmCurve} from './chart.js';
import {along, type Curve, type CurvePoint, seedBand, smooth} from './curve.js';
import type {XAxis} from './options.js';

/** The head of a run log: what was run. */
export type RunHead = Omit<RunRecord, 'kind' | 'schema' | 'startedAt'>;

/** One optimizer step, as far as a report shows it. */
export type LoggedStep = Pick<StepRecord, 'step' | 'tokens' | 'flops' | 'loss' | 'tokensPerSecond' | 'load'>;

/** One evaluation, as far as a report shows it. */
export type LoggedEval = Pick<EvalRecord, 'step' | 'tokens' | 'split' | 'loss'>;

/** The records of one run that a report reads. */
export interface RunRecords {
  readonly head: RunHead;
  readonly steps: readonly LoggedStep[];
  readonly evals: readonly LoggedEval[];
  /** How the run ended; null while it goes on, or if it was killed. */
  readonly end: EndRecord['reason'] | null;
}

/** One run, ready to be drawn. */
export interface ReportRun {
  /** Name of the run folder, without the path to it: a report is made to be shared. */
  readonly name: string;
  readonly head: RunHead;
  readonly train: Curve;
  readonly validation: Curve;
  /** Mean load of each expert over the last steps, [MoE layer][expert]; empty for a dense model. */
  readonly load: readonly (readonly number[])[];
  /** How many steps `load` is the mean of. */
  readonly numLoadSteps: number;
  /** Median over the steps. */
  readonly tokensPerSecond: number;
  /** Whether the last training loss is not a number. */
  readonly hasDiverged: boolean;
  readonly end: RunRecords['end'];
  /** The resolved config of the run as text, if its folder has one. */
  readonly config: string | null;
}

/** The runs that differ in nothing but their seed. */
export interface ReportArm {
  readonly label: string;
  readonly runs: readonly ReportRun[];
}

/** Share of a run, at its end, over which expert load is averaged. */
const LOAD_SHARE = 0.1;

/** Turns the records of a run folder into what a report needs. */
export function reportRun(folder: string, {head, steps, evals, end}: RunRecords, config: string | null): ReportRun {
  const routed = steps.flatMap(({load}) => (load?.some((row) => row.length > 0) ? [load] : []));
  const last = routed.slice(-Math.max(1, Math.ceil(routed.length * LOAD_SHARE)));
  const name = basename(resolve(folder));
  const label = printable(head.arm || head.name || name);
  return {
    name,
    head,
    train: {label, arm: head.arm, points: steps.map((step) => ({...point(step), flops: step.flops}))},
    validation: {label, arm: head.arm, points: withFlops(validationOf(evals), steps)},
    load: meanLoad(last),
    numLoadSteps: last.length,
    tokensPerSecond: median(steps.flatMap(({tokensPerSecond: speed}) => (speed === null ? [] : [speed]))),
    hasDiverged: steps.at(-1)?.loss === null,
    end,
    config,
  };
}

/**
 * Puts runs of one arm that differ in their seed together, in order of appearance.
 *
 * Runs are of one arm if experiment, arm and model size agree. If they have a seed in common as well they are repeats, or
 * something else differs: then each stands alone, under the name of its folder.
 */
export function groupArms(runs: readonly ReportRun[]): ReportArm[] {
  const arms = groupBy(runs, armKey).flatMap((group) => {
    const isSeeds = new Set(group.map(({head}) => head.seed)).size === group.length;
    const first = group[0];
    if (isSeeds && first) return [{label: first.train.label, runs: group}];
    return group.map((run) => ({label: `${run.train.label} (${run.name})`, runs: [run]}));
  });
  return uniqueLabels(arms);
}

/** The training or validation loss of an arm along an axis: the mean over its seeds, and their spread. */
export function armCurve({label, runs}: ReportArm, kind: 'train' | 'validation', x: XAxis, smoothing = 0): ArmCurve {
  const seeds = runs.map((run) => along(smooth(finite(run[kind]), smoothing), x));
  const drawn = seeds.filter((points) => points.length > 0);
  return {label, numSeeds: drawn.length, points: drawn.length > 0 ? seedBand(drawn) : []};
}

/** Without the losses that are not numbers: one of them would end the moving average. */
function finite({points}: Curve): CurvePoint[] {
  return points.filter(({loss}) => Number.isFinite(loss));
}

function point({step, tokens, loss}: Pick<LoggedStep, 'step' | 'tokens' | 'loss'>): Omit<CurvePoint, 'flops'> {
  return {step, tokens, loss: loss ?? Number.NaN};
}

/** The evaluations on the validation split; of the first split there is if none has that name. */
function validationOf(evals: readonly LoggedEval[]): LoggedEval[] {
  const split = evals.some((record) => record.split === 'validation') ? 'validation' : evals[0]?.split;
  return evals.filter((record) => record.split === split);
}

/** Evaluations with the FLOPs that training had spent by then: those of the last step up to them, 0 before the first. */
function withFlops(evals: readonly LoggedEval[], steps: readonly LoggedStep[]): CurvePoint[] {
  let next = 0;
  return evals.map((record) => {
    while ((steps[next]?.step ?? Number.POSITIVE_INFINITY) <= record.step) next++;
    return {...point(record), flops: steps[next - 1]?.flops ?? 0};
  });
}

type Load = readonly (readonly (number | null)[])[];

/** Mean over steps of the share each expert has in its layer. */
function meanLoad(steps: readonly Load[]): number[][] {
  const shares = steps.map((load) => load.map(shareOf));
  return (shares[0] ?? []).map((row, layer) =>
    row.map((_, expert) => shares.reduce((sum, load) => sum + (load[layer]?.[expert] ?? 0), 0) / shares.length),
  );
}

function shareOf(row: readonly (number | null)[]): number[] {
  const total = row.reduce<number>((sum, value) => sum + (value ?? 0), 0);
  return row.map((value) => (total > 0 ? (value ?? 0) / total : 0));
}

function armKey({head}: ReportRun): string {
  return JSON.stringify([head.name, head.arm, head.parameters.total, head.parameters.active]);
}

/** Arms of several experiments can share a name; then the experiment's name, or a number, tells them apart. */
function uniqueLabels(arms: readonly ReportArm[]): ReportArm[] {
  const named = arms.map((arm) =>
    isShared(arms, arm.label) ? {...arm, label: `${arm.label}, ${printable(arm.runs[0]?.head.name ?? '')}`} : arm,
  );
  return named.map((arm, i) => (isShared(named, arm.label) ? {...arm, label: `${arm.label} #${i + 1}`} : arm));
}

function isShared(arms: readonly ReportArm[], label: string): boolean {
  return arms.filter((arm) => arm.label === label).length > 1;
}

function groupBy<T>(values: readonly T[], key: (value: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const value of values) groups.set(key(value), [...(groups.get(key(value)) ?? []), value]);
  return [...groups.values()];
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length % 2 === 1) return sorted[middle] ?? Number.NaN;
  return ((sorted[middle - 1] ?? Number.NaN) + (sorted[middle] ?? Number.NaN)) / 2;
}

/** A name without control characters, which neither SVG nor a terminal can show. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ').trim();
}
