// What XLA says of the memory of a program that it has planned: `*-buffer-assignment.txt` of its dump.
import {EnvironmentError} from '../util/errors.js';

/** End of the name of the report. */
export const REPORT = '-buffer-assignment.txt';

/** End of the name of what XLA writes after it: once that is there, the report is whole. */
export const AFTER_REPORT = '-memory-usage-report.txt';

/**
 * Bytes that a program needs besides what is held before and after it: all its allocations but those of its parameters, with
 * which its variables share theirs.
 *
 * @throws EnvironmentError if the report has another form than is known, or does not add up.
 */
export function workBytesOf(report: string): number {
  const total = Number(/^Total bytes used: (\d+)/m.exec(report)?.[1]);
  const allocations = [...report.matchAll(/^allocation \d+: (?:0x[\da-f]+, )?size (\d+)(.*)$/gm)].map(
    ([, size, what = '']) => ({size: Number(size), isParameter: /^(?:, color \d+)?, parameter \d+,/.test(what)}),
  );
  const bytesOf = (list: typeof allocations): number => list.reduce((sum, {size}) => sum + size, 0);
  if (Number.isNaN(total) || bytesOf(allocations) !== total) {
    const found = Number.isNaN(total) ? 'no total' : `a total of ${total} bytes`;
    throw new EnvironmentError(
      `XLA's report on the memory of a step cannot be read: it has ${found}, and ${allocations.length} allocations of ${bytesOf(allocations)} bytes.`,
      {
        hint: '`downcycle doctor` says whether this TensorFlow is of a tested version; training does not need the report.',
      },
    );
  }
  return bytesOf(allocations.filter(({isParameter}) => !isParameter));
}
