import {type TableColumn, textTable} from '../../src/report/table.js';
import type {CaseResult, SideResult} from './result.js';
import {type Spread, spread} from './statistics.js';

const COLUMNS: readonly TableColumn[] = [
  {title: 'case', align: 'left'},
  {title: 'side', align: 'left'},
  {title: 'ms a step', align: 'right'},
  {title: 'min to max', align: 'right'},
  {title: 'ours over it', align: 'right'},
  {title: 'peak\nMB', align: 'right'},
  {title: 'ours\nover it', align: 'right'},
  {title: 'first\nstep s', align: 'right'},
  {title: 'out-\nside', align: 'right'},
  {title: 'GFLOP/s', align: 'right'},
  {title: 'of\nmatmul', align: 'right'},
  {title: 'fullest\nexpert', align: 'right'},
];

/** The results as a table, one line a side, with what its columns mean below. */
export function resultTable(results: readonly CaseResult[]): string {
  return `${textTable(COLUMNS, results.flatMap(caseRows))}\n\n${LEGEND}`;
}

const LEGEND = `ms a step: median of the turns' medians, with the smallest and largest turn. ours over it: downcycle's time over this
side's in the same round, median and extremes. peak: VmHWM of the process, start and compilation included. outside: share of a step
outside the compiled function. GFLOP/s: the model's own FLOPs (6 a weight and token, 4 where weights are frozen, half the scores) over the median step; of matmul:
over the same process's best plain 1024 x 1024 x 1024 product. fullest expert: its rows over the mean, any layer, last step.`;

function caseRows(result: CaseResult): string[][] {
  const [ours] = result.sides;
  return result.sides.map((side, i) => {
    const ratio = result.ratios[side.name];
    return [
      i === 0 ? `${result.name} ${result.kind} ${result.finetune}` : '',
      side.name,
      ...timeCells(side.msByRound),
      ratio ? ratioCell(ratio) : '',
      megabytes(side.peakBytes),
      i > 0 && ours ? memoryRatio(ours, side) : '',
      (side.firstMs / 1000).toFixed(1),
      side.outside === null ? '' : `${(100 * side.outside).toFixed(1)}%`,
      side.gflops.toFixed(0),
      `${((100 * side.gflops) / bestMatmul(side)).toFixed(0)}%`,
      side.fullest === null ? '' : side.fullest.toFixed(2),
    ];
  });
}

function timeCells(msByRound: readonly number[]): [string, string] {
  const {median, min, max} = spread(msByRound);
  return [milliseconds(median), `${milliseconds(min)} to ${milliseconds(max)}`];
}

function milliseconds(value: number): string {
  return value < 1000 ? value.toFixed(1) : value.toFixed(0);
}

function ratioCell({median, min, max}: Spread): string {
  return `${median.toFixed(2)} (${min.toFixed(2)} to ${max.toFixed(2)})`;
}

function megabytes(bytes: number | null): string {
  return bytes === null ? '?' : (bytes / 1e6).toFixed(0);
}

function memoryRatio(ours: SideResult, side: SideResult): string {
  return ours.peakBytes === null || side.peakBytes === null ? '?' : (ours.peakBytes / side.peakBytes).toFixed(2);
}

/** GFLOP/s of the fastest way a side has of computing a plain product. */
export function bestMatmul({matmulGflops}: SideResult): number {
  return Math.max(...Object.values(matmulGflops));
}

/** What stands below the table: matmul speeds, notes, and whatever makes a time doubtful. */
export function remarks({name, kind, finetune, sides}: CaseResult): string[] {
  return sides.map(({name: side, matmulGflops, residentBytes, notes, overflows, idleCores, lastLoss}) => {
    const products = Object.entries(matmulGflops).map(([way, speed]) => `${way} ${speed.toFixed(0)}`);
    const parts = [
      `plain matmul ${products.join(', ')} GFLOP/s`,
      `last loss ${lastLoss.toFixed(4)}`,
      ...notes,
      ...(residentBytes === null ? [] : [`${megabytes(residentBytes)} MB at the end`]),
      ...(overflows > 0 ? [`timed steps that dropped rows: ${overflows}`] : []),
      ...(idleCores === null ? [] : [`used at most ${idleCores.toFixed(2)} cores while idle`]),
    ];
    return `${name} ${kind} ${finetune}, ${side}: ${parts.join('; ')}.`;
  });
}
