import type {PrepareProgress, PrepareResult} from '../../data/prepare.js';
import {formatCount, formatDuration} from '../../report/number.js';
import {textTable} from '../../report/table.js';

/** The status line of a preparation. */
export function prepareStatus({source, documents, tokens}: PrepareProgress): string {
  return `${source}  ${documents} documents  ${formatCount(tokens)} tokens`;
}

/** What was prepared, a source a line. */
export function preparedText({out, sources, tokens, rows, seconds}: PrepareResult): string {
  const columns = ['source', 'documents', 'tokens', 'rows', 'validation\nrows'].map((title, i) => ({
    title,
    align: i === 0 ? ('left' as const) : ('right' as const),
  }));
  const lines = sources.map(({name, train, valid}) => [
    name,
    String(train.documents + (valid?.documents ?? 0)),
    formatCount(train.tokens + (valid?.tokens ?? 0)),
    String(train.rows),
    valid ? String(valid.rows) : '-',
  ]);
  const total = `${formatCount(tokens)} tokens in ${rows} rows, ${formatDuration(seconds)}`;
  return `${textTable(columns, lines)}\n\n${total}\n${out}`;
}
