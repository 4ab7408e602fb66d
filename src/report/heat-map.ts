import type {TopLevelSpec} from 'vega-lite';
import {config} from './chart.js';
import type {Theme} from './theme.js';

/** How the tokens of one arm were spread over its experts. */
export interface LoadMap {
  readonly label: string;
  /** Load of every expert, [MoE layer][expert], in any unit; layers may have different numbers of experts. */
  readonly load: readonly (readonly number[])[];
}

const WIDTH = 372;
const MAX_CELL = 26;
const MAX_HEIGHT = 320;
const MIN_ROW = 3;

/**
 * The spec of an expert-load heat map: a row for each MoE layer, a column for each expert.
 *
 * Colour is the load over the fair share of that layer: 1 if all experts get the same, 0 for an expert that is never chosen.
 */
export function loadSpec({label, load}: LoadMap, theme: Theme, note: string): TopLevelSpec {
  const numExperts = Math.max(1, ...load.map((row) => row.length));
  const cell = Math.min(MAX_CELL, WIDTH / numExperts);
  const row = Math.max(MIN_ROW, Math.min(MAX_CELL, MAX_HEIGHT / load.length));
  return {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    background: theme.paper,
    padding: 5,
    config: config(theme),
    title: {text: label, subtitle: note},
    width: cell * numExperts,
    height: row * load.length,
    data: {values: loadCells(load)},
    mark: {type: 'rect', stroke: theme.paper, strokeWidth: Math.min(cell, row) > 8 ? 1 : 0},
    encoding: {
      x: axis('expert', 'Routed expert', numExperts, cell),
      y: axis('layer', 'MoE layer', load.length, row),
      color: shareChannel(),
    },
  };
}

/** One record a cell: the load of an expert over the mean load of its layer's experts. A layer without tokens gives zeros. */
export function loadCells(load: readonly (readonly number[])[]): {layer: number; expert: number; ratio: number}[] {
  return load.flatMap((row, layer) => {
    const total = row.reduce((a, b) => a + b, 0);
    return row.map((value, expert) => ({layer, expert, ratio: total > 0 ? (value * row.length) / total : 0}));
  });
}

/** Blue is idle, pale is fair, orange is crowded; told apart without red and green. */
function shareChannel(): object {
  return {
    field: 'ratio',
    type: 'quantitative',
    scale: {domain: [0, 1, 2], range: ['#2464a8', '#f0ede6', '#c2570c'], clamp: true, interpolate: 'rgb'},
    legend: {
      title: ['Load', '(1 = fair)'],
      values: [0, 1, 2],
      format: 'd',
      labelExpr: "datum.value == 2 ? '2+' : datum.label",
      gradientLength: 90,
      gradientThickness: 10,
      labelOffset: 4,
    },
  };
}

function axis(field: 'expert' | 'layer', title: string, count: number, size: number): object {
  const stride = [1, 2, 4, 8, 16, 32, 64].find((n) => n * size >= 18) ?? 128;
  const values = Array.from({length: Math.ceil(count / stride)}, (_, i) => i * stride);
  const domain = Array.from({length: count}, (_, i) => i);
  return {
    field,
    type: 'ordinal',
    scale: {domain, paddingInner: 0, paddingOuter: 0},
    axis: {title, values, labelAngle: 0, domain: false, ticks: false},
  };
}
