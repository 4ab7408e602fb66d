// The table of conversions: a row for each method and sparsity, means over seeds with intervals.
import {formatCount, formatDuration} from './number.js';
import type {TableColumn} from './table.js';

/** What one conversion was measured to be; seeds of one arm and sparsity make one row. */
export interface MeasuredConversion {
  readonly arm: string;
  readonly sparsity: number;
  readonly seed: number | null;
  readonly perplexities: readonly {readonly name: string; readonly perplexity: number}[];
  /** With oracle routing; absent where that was not measured. */
  readonly oracle?: readonly {readonly name: string; readonly perplexity: number}[];
  readonly parameters: {readonly total: number; readonly active: number};
  readonly seconds: number | null;
  readonly peakBytes: number | null;
}

/** A mean over seeds, and half the width of its 95% interval (Student's t); null for one seed. */
export interface Estimate {
  readonly mean: number;
  readonly halfWidth: number | null;
}

/** One row of the table. */
export interface ConversionSummary {
  readonly arm: string;
  readonly sparsity: number;
  readonly numSeeds: number;
  /** By text, in their order. */
  readonly perplexities: readonly (Estimate & {readonly name: string})[];
  /** Geometric mean over texts. */
  readonly geometricMean: Estimate;
  /** The same with oracle routing; null where that was not measured. */
  readonly oracle: Estimate | null;
  readonly activeParameters: number;
  readonly seconds: number | null;
  readonly peakBytes: number | null;
}

/** 97.5% quantiles of Student's t for 1 to 9 degrees of freedom; beyond, `1.96 + 2.7 / n` is as good. */
const STUDENT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262] as const;

/** Rows by sparsity, then in the order their arms came in. */
export function summariseConversions(measured: readonly MeasuredConversion[]): ConversionSummary[] {
  const groups = new Map<string, MeasuredConversion[]>();
  for (const one of measured) {
    const key = `${one.sparsity} ${one.arm}`;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  return [...groups.values()].map(summary).sort((a, b) => a.sparsity - b.sparsity);
}

/** Whether any row is of several seeds. */
export function hasIntervals(rows: readonly ConversionSummary[]): boolean {
  return rows.some(({geometricMean}) => geometricMean.halfWidth !== null);
}

/** Columns of the table, for a terminal, a page or a file. */
export function conversionColumns(
  rows: readonly ConversionSummary[],
): (TableColumn & {readonly cell: (row: ConversionSummary) => string})[] {
  const right = (title: string, cell: (row: ConversionSummary) => string) => ({title, align: 'right' as const, cell});
  const texts = rows[0]?.perplexities.map(({name}) => name) ?? [];
  const hasOracle = rows.some(({oracle}) => oracle !== null);
  return [
    {title: 'method', align: 'left', cell: ({arm}) => arm},
    right('idle', ({sparsity}) => `${Number((100 * sparsity).toPrecision(3))}%`),
    ...texts.map((text, i) => right(text, ({perplexities}) => estimateText(perplexities[i]))),
    right('geometric\nmean', ({geometricMean}) => estimateText(geometricMean)),
    ...(hasOracle ? [right('with\noracle', ({oracle}) => estimateText(oracle))] : []),
    right('active\nparams', ({activeParameters}) => formatCount(activeParameters)),
    right('time', ({seconds}) => (seconds === null ? '-' : formatDuration(seconds))),
    right('peak\nMB', ({peakBytes}) => (peakBytes === null ? '-' : (peakBytes / 1e6).toFixed(0))),
  ];
}

/** The measurements as comma-separated values, one line a seed. */
export function conversionCsv(measured: readonly MeasuredConversion[]): string {
  const texts = measured[0]?.perplexities.map(({name}) => name) ?? [];
  const oracleTexts = measured.some(({oracle}) => oracle) ? texts : [];
  const head = [
    'method',
    'sparsity',
    'seed',
    ...texts,
    ...oracleTexts.map((text) => `oracle_${text}`),
    'total_parameters',
    'active_parameters',
    'seconds',
    'peak_bytes',
  ];
  const lines = measured.map(({arm, sparsity, seed, perplexities, oracle, parameters, seconds, peakBytes}) => [
    arm,
    sparsity,
    seed ?? '',
    ...perplexities.map(({perplexity}) => perplexity),
    ...oracleTexts.map((_, i) => oracle?.[i]?.perplexity ?? ''),
    parameters.total,
    parameters.active,
    seconds ?? '',
    peakBytes ?? '',
  ]);
  return `${[head, ...lines].map((line) => line.map(quoted).join(',')).join('\n')}\n`;
}

function summary(group: readonly MeasuredConversion[]): ConversionSummary {
  const [first] = group;
  if (!first) throw new Error('a row of no measurement');
  const perplexities = first.perplexities.map(({name}, i) => ({
    name,
    ...estimate(group.map((one) => one.perplexities[i]?.perplexity ?? Number.NaN)),
  }));
  const oracles = group.flatMap(({oracle}) => (oracle ? [geometricMean(oracle)] : []));
  const mean = (values: readonly (number | null)[]): number | null =>
    values.includes(null) ? null : estimate(values as number[]).mean;
  return {
    arm: first.arm,
    sparsity: first.sparsity,
    numSeeds: group.length,
    perplexities,
    geometricMean: estimate(group.map((one) => geometricMean(one.perplexities))),
    oracle: oracles.length > 0 ? estimate(oracles) : null,
    activeParameters: first.parameters.active,
    seconds: mean(group.map(({seconds}) => seconds)),
    peakBytes: mean(group.map(({peakBytes}) => peakBytes)),
  };
}

function geometricMean(perplexities: MeasuredConversion['perplexities']): number {
  const logs = perplexities.map(({perplexity}) => Math.log(perplexity));
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

function estimate(values: readonly number[]): Estimate {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return {mean, halfWidth: null};
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return {mean, halfWidth: (STUDENT[n - 2] ?? 1.96 + 2.7 / (n - 1)) * Math.sqrt(variance / n)};
}

function estimateText(value: Estimate | null | undefined): string {
  if (!value || !Number.isFinite(value.mean)) return '-';
  const digits = value.mean < 100 ? 2 : value.mean < 1000 ? 1 : 0;
  const mean = value.mean.toFixed(digits);
  return value.halfWidth === null ? mean : `${mean} ± ${value.halfWidth.toFixed(digits)}`;
}

function quoted(cell: string | number): string {
  const text = String(cell);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
