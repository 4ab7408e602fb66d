import {join} from 'node:path';
import type {TopLevelSpec} from 'vega-lite';
import {writeFileAtomic} from '../util/atomic.js';
import {config} from './chart.js';
import {
  type ConversionSummary,
  conversionColumns,
  conversionCsv,
  type MeasuredConversion,
  summariseConversions,
} from './conversion-table.js';
import {htmlTable, plainFigure, plainPage} from './plain-page.js';
import {drawSpec} from './render.js';
import {armColour, armDash, PAGE, type Theme} from './theme.js';

/** What was written, and the table. */
export interface WrittenConversions {
  readonly page: string;
  readonly csv: string;
  readonly rows: readonly ConversionSummary[];
}

/** Writes `index.html` (table, and perplexity against sparsity) and `conversions.csv` into a folder. */
export async function writeConversionReport(
  folder: string,
  title: string,
  measured: readonly MeasuredConversion[],
): Promise<WrittenConversions> {
  const rows = summariseConversions(measured);
  const [page, csv] = [join(folder, 'index.html'), join(folder, 'conversions.csv')];
  await writeFileAtomic(csv, conversionCsv(measured));
  await writeFileAtomic(page, await conversionPage(title, rows));
  return {page, csv, rows};
}

async function conversionPage(title: string, rows: readonly ConversionSummary[]): Promise<string> {
  const {svg} = await drawSpec(sparsitySpec(rows, PAGE), 'sparsity');
  const columns = conversionColumns(rows);
  return plainPage({
    title,
    lead: `Perplexity right after conversion, without training. Lower is better; ± is half a 95% interval over seeds.${oracleNote(rows)}`,
    body: [
      '<h2>Table</h2>',
      htmlTable(
        columns,
        rows.map((row) => columns.map(({cell}) => cell(row))),
      ),
      '<h2>Perplexity against idle neurons</h2>',
      plainFigure(svg, 'Perplexity of every method against the share of idle neurons.'),
    ].join('\n'),
  });
}

function oracleNote(rows: readonly ConversionSummary[]): string {
  if (rows.every(({oracle}) => oracle === null)) return '';
  return ' With oracle: the geometric mean if each token had the experts of the largest Σ|h| over their neurons, as a router would choose that foresees them all.';
}

/** One line a method from the dense model on, perplexities on a log scale. */
function sparsitySpec(rows: readonly ConversionSummary[], theme: Theme): TopLevelSpec {
  const dense = rows.find(({sparsity}) => sparsity === 0);
  const methods = [...new Set(rows.filter(({sparsity}) => sparsity > 0).map(({arm}) => arm))];
  const values = methods.flatMap((method) =>
    rows
      .filter((row) => row === dense || row.arm === method)
      .map(({sparsity, geometricMean}) => ({method, idle: sparsity, perplexity: geometricMean.mean})),
  );
  const scale = {domain: methods, range: methods.map((_, i) => armColour(theme, i))};
  const dashes = {domain: methods, range: methods.map((_, i) => armDash(i))};
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: theme.paper,
    padding: 5,
    width: 560,
    height: 320,
    config: config(theme),
    data: {values},
    mark: {type: 'line', strokeWidth: 2, point: {size: 30, filled: true}},
    encoding: {
      x: {
        field: 'idle',
        type: 'quantitative',
        axis: {title: 'Share of FFN neurons idle for a token', format: '%', grid: false, values: sparsities(rows)},
      },
      y: {
        field: 'perplexity',
        type: 'quantitative',
        scale: {type: 'log', nice: false},
        axis: {title: 'Perplexity (geometric mean of the texts, log scale)', domain: false, ticks: false, tickCount: 6},
      },
      color: {field: 'method', type: 'nominal', scale, legend: {title: null}},
      strokeDash: {field: 'method', type: 'nominal', scale: dashes, legend: {title: null}},
    },
  };
}

function sparsities(rows: readonly ConversionSummary[]): number[] {
  return [...new Set(rows.map(({sparsity}) => sparsity))];
}
