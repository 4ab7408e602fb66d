import type {PrepareProgress, PrepareResult} from '../../data/prepare.js';
import {formatCount, formatDuration} from '../../report/number.js';
import {textTable} from '../../report/table.js';

/** The status line of a preparation. */
export function prepareStatus({source, documents, tokens}: PrepareProgress): string {
  return `${source}  ${documents} documents  ${formatCount(tokens)} tokens`;
}

/** What was prepared, a source a line. */
export function preparedText({out, sources, tokens, rows, seconds}: PrepareResult): string {
  const titles = [
    'source',
    'read as',
    'documents',
    'tokens',
    'learnt',
    'rows',
    'validation\nrows',
    'rows left out:\nnothing learnt',
  ];
  const columns = titles.map((title, i) => ({title, align: i < 2 ? ('left' as const) : ('right' as const)}));
  const lines = sources.map(({name, format, train, valid}) => [
    name,
    format,
    String(train.documents + (valid?.documents ?? 0)),
    formatCount(train.tokens + (valid?.tokens ?? 0)),
    formatCount(train.learnt + (valid?.learnt ?? 0)),
    String(train.rows),
    valid ? String(valid.rows) : '-',
    String(train.rowsLeftOut + (valid?.rowsLeftOut ?? 0)),
  ]);
  const total = `${formatCount(tokens)} tokens of text, packed into ${rows} rows, ${formatDuration(seconds)}`;
  return `${textTable(columns, lines)}\n\n${total}\n${out}`;
}
