import {firstReach} from './curve.js';
import {formatCount, formatLoss, formatRate} from './number.js';
import {armCurve, type ReportArm} from './runs.js';
import {type TableColumn, type TableStyle, textTable} from './table.js';

/** One arm in the table of a comparison. Losses are nats a token; null where there is nothing to say. */
export interface SummaryRow {
  readonly arm: string;
  readonly seeds: readonly number[];
  readonly totalParameters: number;
  readonly activeParameters: number;
  /** Training tokens of the longest run of the arm. */
  readonly tokens: number;
  /** Mean validation loss over seeds at the first evaluation. */
  readonly firstLoss: number | null;
  /** The same at the last evaluation that all seeds reached, with the least and greatest over seeds. */
  readonly lastLoss: number | null;
  readonly lastRange: readonly [number, number] | null;
  /** Tokens at which the validation loss first reached the target; null if never. */
  readonly tokensToTarget: number | null;
  readonly tokensPerSecond: number | null;
  readonly hasDiverged: boolean;
}

/** The table of a comparison. */
export interface Summary {
  /** The final validation loss of the worst arm: the loss that all of them can be asked to reach. */
  readonly target: {readonly arm: string; readonly loss: number} | null;
  readonly rows: readonly SummaryRow[];
}

/** One column: its title in a page, in a terminal, and the text of its cells. */
interface SummaryColumn {
  readonly title: string;
  readonly align: TableColumn['align'];
  readonly cell: (row: SummaryRow) => string;
}

/** Compares arms by their validation losses: where each began and ended, and how soon it was as good as the worst. */
export function summarise(arms: readonly ReportArm[]): Summary {
  const curves = arms.map((arm) => armCurve(arm, 'validation', 'tokens'));
  const rows = arms.map((arm, i) => bareRow(arm, curves[i]?.points ?? []));
  const worst = rows
    .filter((row) => row.lastLoss !== null && !row.hasDiverged)
    .reduce<SummaryRow | null>((a, b) => (a === null || (b.lastLoss ?? 0) > (a.lastLoss ?? 0) ? b : a), null);
  if (worst === null || worst.lastLoss === null) return {target: null, rows};
  const target = {arm: worst.arm, loss: worst.lastLoss};
  return {
    target,
    rows: rows.map((row, i) => ({...row, tokensToTarget: firstReach(curves[i]?.points ?? [], target.loss)})),
  };
}

/** The columns of the table, for a terminal and a page alike. */
export function summaryColumns({target}: Summary): SummaryColumn[] {
  return [
    {title: 'arm', align: 'left', cell: ({arm}) => arm},
    {title: 'seeds', align: 'right', cell: ({seeds}) => String(seeds.length)},
    {title: 'total\nparams', align: 'right', cell: ({totalParameters}) => formatCount(totalParameters)},
    {title: 'active\nparams', align: 'right', cell: ({activeParameters}) => formatCount(activeParameters)},
    {title: 'first\nval loss', align: 'right', cell: ({firstLoss}) => formatLoss(firstLoss ?? Number.NaN)},
    {title: 'last\nval loss', align: 'right', cell: lastCell},
    {title: target ? `tokens to\n${formatLoss(target.loss)}` : 'tokens to\nworst', align: 'right', cell: targetCell},
    {title: 'speed', align: 'right', cell: ({tokensPerSecond}) => formatRate(tokensPerSecond ?? Number.NaN)},
  ];
}

/** The table as text for a terminal, with a line below that says what its target is. */
export function summaryText(summary: Summary, style?: TableStyle): string {
  const columns = summaryColumns(summary);
  const rows = summary.rows.map((row) => columns.map(({cell}) => cell(row)));
  return `${textTable(columns, rows, style)}\n\n${targetSentence(summary)}`;
}

/** What the column `tokens to` means in this table, in one sentence. */
export function targetSentence({target, rows}: Summary): string {
  if (!target) return 'No arm has a validation loss, so there is no target to reach.';
  const spread = rows.some(({seeds}) => seeds.length > 1)
    ? ' Losses are means over seeds, with the least and greatest.'
    : '';
  return `Tokens to ${formatLoss(target.loss)}: when an arm first reached the final validation loss of ${target.arm}, the worst arm.${spread}`;
}

function bareRow({label, runs}: ReportArm, points: readonly {loss: number; low: number; high: number}[]): SummaryRow {
  const first = points[0];
  const last = points.at(-1);
  const speeds = runs.map((run) => run.tokensPerSecond).filter(Number.isFinite);
  return {
    arm: label,
    seeds: runs.map(({head}) => head.seed),
    totalParameters: runs[0]?.head.parameters.total ?? 0,
    activeParameters: runs[0]?.head.parameters.active ?? 0,
    tokens: Math.max(...runs.map((run) => run.train.points.at(-1)?.tokens ?? 0)),
    firstLoss: first?.loss ?? null,
    lastLoss: last?.loss ?? null,
    lastRange: last ? [last.low, last.high] : null,
    tokensToTarget: null,
    tokensPerSecond: speeds.length > 0 ? speeds.reduce((a, b) => a + b, 0) / speeds.length : null,
    hasDiverged: runs.some((run) => run.hasDiverged),
  };
}

function lastCell({lastLoss, lastRange, seeds, hasDiverged}: SummaryRow): string {
  if (hasDiverged) return 'diverged';
  const text = formatLoss(lastLoss ?? Number.NaN);
  return seeds.length > 1 && lastRange ? `${text} (${lastRange.map(formatLoss).join('-')})` : text;
}

function targetCell({tokensToTarget}: SummaryRow): string {
  return tokensToTarget === null ? '-' : formatCount(Math.round(tokensToTarget));
}
