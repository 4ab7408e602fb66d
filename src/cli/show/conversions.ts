import {type ConversionSummary, conversionColumns} from '../../report/conversion-table.js';
import {textTable} from '../../report/table.js';

/** The table of conversions for a terminal. */
export function conversionText(rows: readonly ConversionSummary[], head: (text: string) => string): string {
  const columns = conversionColumns(rows);
  return textTable(
    columns,
    rows.map((row) => columns.map(({cell}) => cell(row))),
    {head},
  );
}
