import {type ConversionSummary, conversionColumns, hasIntervals} from '../../report/conversion-table.js';
import {textTable} from '../../report/table.js';

/** The table of conversions for a terminal. */
export function conversionText(rows: readonly ConversionSummary[], head: (text: string) => string): string {
  const columns = conversionColumns(rows);
  const table = textTable(
    columns,
    rows.map((row) => columns.map(({cell}) => cell(row))),
    {head},
  );
  return hasIntervals(rows) ? `${table}\n\n± is half a 95% interval over seeds (Student's t).` : table;
}
