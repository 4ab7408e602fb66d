import type {OnDownload} from '../../hub/download.js';
import {formatCount, formatDuration} from '../../report/number.js';
import type {StatusLine} from '../../report/terminal.js';

/** Seconds before a speed says anything. */
const SOON = 2;

/** Shows a download on a status line. */
export function showDownload(status: StatusLine, clock: () => number = Date.now): OnDownload {
  let start: number | null = null;
  return ({id, file, done, total, fetched, holder}) => {
    if (holder !== null) return status.update(`${id}  ${file}  process ${holder} is fetching it`);
    start ??= clock();
    const seconds = (clock() - start) / 1000;
    const left = ((total - done) / fetched) * seconds;
    const isKnown = seconds > SOON && fetched > 0 && done < total;
    const parts = [id, file, `${formatCount(done)}B of ${formatCount(total)}B`];
    status.update([...parts, ...(isKnown ? [`${formatDuration(left)} left`] : [])].join('  '));
  };
}
