import type {OnDownload} from '../../hub/download.js';
import {formatCount, formatDuration} from '../../report/number.js';
import type {StatusLine} from '../../report/terminal.js';

/** Shows a download on a status line. */
export function showDownload(status: StatusLine, clock: () => number = Date.now): OnDownload {
  let start: {readonly time: number; readonly done: number} | null = null;
  return ({id, file, done, total}) => {
    start ??= {time: clock(), done};
    const seconds = (clock() - start.time) / 1000;
    const rate = (done - start.done) / seconds; // not a number at first, and then not shown
    const left = rate > 0 && Number.isFinite(rate) ? [`${formatDuration((total - done) / rate)} left`] : [];
    status.update([id, file, `${formatCount(done)}B of ${formatCount(total)}B`, ...left].join('  '));
  };
}
