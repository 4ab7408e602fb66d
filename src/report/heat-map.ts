import type {TopLevelSpec} from 'vega-lite';
import {config} from './chart.js';
import type {Theme} from './theme.js';

/** How the tokens of one arm were spread over its experts. */
export interface LoadMap {
  readonly label: string;
  /** Load of every expert, [MoE layer][expert], in any unit; layers may have different numbers of experts. */
  readonly load: readonly (readonly number[])[];
}

/** A table of ratios as a picture: 1 is what is fair, or what chance has. */
export interface HeatMap {
  readonly title: string;
  readonly note: string;
  /** [row][column]; null is left blank, and rows may be of different lengths. */
  readonly ratios: readonly (readonly (number | null)[])[];
  readonly columns: string;
  /** Rows are numbered as columns are, unless they have names. */
  readonly rows: {readonly title: string | null; readonly names?: readonly string[]};
  /** What the colours tell, a line each, and the ratio from which on they are all one. */
  readonly legend: {readonly title: readonly string[]; readonly most: number};
}

const WIDTH = 372;
const MAX_CELL = 26;
const MAX_HEIGHT = 320;
const MIN_ROW = 3;
/** So that no name is left out. */
const MIN_NAMED_ROW = 14;
/** Longer names of rows are cut with an ellipsis. */
const NAME_LIMIT = 120;

/**
 * The spec of an expert-load heat map: a row for each MoE layer, a column for each expert.
 *
 * Colour is the load over the fair share of that layer: 1 if all experts get the same, 0 for an expert that is never chosen.
 */
export function loadSpec({label, load}: LoadMap, theme: Theme, note: string): TopLevelSpec {
  return heatMapSpec({title: label, note, ...loadHeatMap(load), rows: {title: 'MoE layer'}}, theme);
}

/** What a heat map of loads shows, [layer][expert]. */
export function loadHeatMap(load: LoadMap['load']): Pick<HeatMap, 'ratios' | 'columns' | 'legend'> {
  return {ratios: fairRatios(load), columns: 'Routed expert', legend: {title: ['Load', '(1 = fair)'], most: 2}};
}

/** The spec of a heat map whose cells are all as wide, and as high if there is room. */
export function heatMapSpec({title, note, ratios, columns, rows, legend}: HeatMap, theme: Theme): TopLevelSpec {
  const numColumns = Math.max(1, ...ratios.map((row) => row.length));
  const cell = Math.min(MAX_CELL, WIDTH / numColumns);
  const least = rows.names ? MIN_NAMED_ROW : MIN_ROW;
  const row = Math.max(least, Math.min(MAX_CELL, MAX_HEIGHT / ratios.length));
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: theme.paper,
    padding: 5,
    config: config(theme),
    title: {text: title, subtitle: note},
    width: cell * numColumns,
    height: row * ratios.length,
    data: {values: cellsOf(ratios)},
    mark: {type: 'rect', stroke: theme.paper, strokeWidth: Math.min(cell, row) > 8 ? 1 : 0},
    encoding: {
      x: numbered('column', columns, numColumns, cell),
      y: rows.names ? named('row', rows.title, rows.names) : numbered('row', rows.title, ratios.length, row),
      color: ratioChannel(legend),
    },
  };
}

/** The loads of each layer over their mean. A layer without tokens gives zeros. */
export function fairRatios(load: readonly (readonly number[])[]): number[][] {
  return load.map((row) => {
    const total = row.reduce((a, b) => a + b, 0);
    return row.map((value) => (total > 0 ? (value * row.length) / total : 0));
  });
}

/** One record a cell that is not blank. */
function cellsOf(ratios: HeatMap['ratios']): {row: number; column: number; ratio: number}[] {
  return ratios.flatMap((values, row) =>
    values.flatMap((ratio, column) => (ratio === null ? [] : [{row, column, ratio}])),
  );
}

/** Blue is less than fair, pale is fair, orange is more; told apart without red and green. */
function ratioChannel({title, most}: HeatMap['legend']): object {
  return {
    field: 'ratio',
    type: 'quantitative',
    scale: {domain: [0, 1, most], range: ['#2464a8', '#f0ede6', '#c2570c'], clamp: true, interpolate: 'rgb'},
    legend: {
      title,
      values: [0, 1, most],
      format: 'd',
      labelExpr: `datum.value == ${most} ? '${most}+' : datum.label`,
      gradientLength: 90,
      gradientThickness: 10,
      labelOffset: 4,
    },
  };
}

function numbered(field: 'column' | 'row', title: string | null, count: number, size: number): object {
  const stride = [1, 2, 4, 8, 16, 32, 64].find((n) => n * size >= 18) ?? 128;
  const values = Array.from({length: Math.ceil(count / stride)}, (_, i) => i * stride);
  return ordinal(field, count, {title, values});
}

/** Places with names, for two may be called alike. */
function named(field: 'row', title: string | null, names: readonly string[]): object {
  const labelExpr = `${JSON.stringify(names)}[datum.value]`;
  return ordinal(field, names.length, {title, labelExpr, labelLimit: NAME_LIMIT});
}

function ordinal(field: 'column' | 'row', count: number, axis: object): object {
  const domain = Array.from({length: count}, (_, i) => i);
  return {
    field,
    type: 'ordinal',
    scale: {domain, paddingInner: 0, paddingOuter: 0},
    axis: {labelAngle: 0, domain: false, ticks: false, ...axis},
  };
}
