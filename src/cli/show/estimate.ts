import {formatCount, formatDuration} from '../../report/number.js';
import {textTable} from '../../report/table.js';
import type {RunEstimate} from '../../train/estimate.js';
import {lines} from './lines.js';

/** What a run will need of memory and time, as a table and a line. */
export function estimateText({terms, bytes, free, time}: RunEstimate): string {
  const row = (what: string, value: number): string[] => [what, gigabytes(value)];
  const rows = [
    ...terms.map((term) => row(term.what, term.bytes)),
    row(time ? 'together' : 'together, at least', bytes),
    row(`free ${free.of}`, free.bytes),
  ];
  const columns = [
    {title: 'what', align: 'left'},
    {title: 'GB', align: 'right'},
  ] as const;
  return time ? `${textTable(columns, rows)}\n\n${timeText(time)}` : textTable(columns, rows);
}

function timeText({flopsPerStep, flopsPerSecond, secondsPerStep, seconds}: NonNullable<RunEstimate['time']>): string {
  const how = `${formatCount(flopsPerStep)} operations a step, ${formatCount(flopsPerSecond)} a second in one product of matrices`;
  return lines([
    ['a step', `about ${formatDuration(secondsPerStep)}`],
    ['all steps', `about ${formatDuration(seconds)}, besides compiling, validation and checkpoints`],
    ['estimated from', how],
  ]);
}

function gigabytes(bytes: number): string {
  return (bytes / 1e9).toFixed(2);
}
