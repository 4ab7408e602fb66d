import type {TopLevelSpec} from 'vega-lite';
import {type AxisScale, lossScale, pixelOf, spread} from './axis.js';
import {type BandPoint, thin} from './curve.js';
import type {XAxis} from './options.js';
import {textWidth} from './text-width.js';
import {armColour, armDash, armDashSign, FONT, type Theme} from './theme.js';

/** One arm in a chart: the mean over its seeds, and how far they lie apart. */
export interface ArmCurve {
  readonly label: string;
  readonly numSeeds: number;
  /** Ascending in x; empty if the arm has nothing to draw here. It keeps its colour all the same. */
  readonly points: readonly BandPoint[];
}

/** A horizontal line to compare with, such as the loss of the dense parent. */
export interface Reference {
  readonly label: string;
  /** Nats a token. */
  readonly loss: number;
}

/** What a loss chart shows. */
export interface LossChart {
  readonly kind: 'validation' | 'train';
  readonly title: string;
  readonly x: XAxis;
  readonly arms: readonly ArmCurve[];
  /** Whether to mark the measured points; for curves of few points. */
  readonly hasMarks: boolean;
  readonly reference?: Reference | undefined;
  /** What a reader must know, a line each: smoothing, bands. */
  readonly notes: readonly string[];
}

type LayeredSpec = Extract<TopLevelSpec, {layer: unknown}>;
type Layer = LayeredSpec['layer'][number];
type Config = NonNullable<TopLevelSpec['config']>;

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';
const WIDTH = 372;
const HEIGHT = 250;
const LABEL_SIZE = 12;
/** Longer arm names are cut with an ellipsis. */
const LABEL_LIMIT = 150;
/** Longer curves are drawn with this many of their points: a chart has no more pixels. */
const MAX_POINTS = 400;
const MAX_MARKS = 40;

const X_TITLES: Record<XAxis, string> = {
  tokens: 'Training tokens',
  flops: 'Training compute (FLOP)',
  steps: 'Optimizer steps',
};

/** The Vega-Lite spec of one loss chart: a line and a seed band for each arm, labelled at its right end. */
export function lossSpec(chart: LossChart, theme: Theme): TopLevelSpec {
  return {$schema: SCHEMA, background: theme.paper, padding: 5, config: config(theme), ...panel(chart, theme)};
}

/** The spec of several loss charts side by side, for one picture. */
export function sideBySide(charts: readonly LossChart[], theme: Theme): TopLevelSpec {
  const resolve = {scale: {color: 'independent', strokeDash: 'independent'}} as const;
  const hconcat = charts.map((chart) => panel(chart, theme));
  return {$schema: SCHEMA, background: theme.paper, padding: 12, spacing: 28, config: config(theme), hconcat, resolve};
}

/** Colours and type that all charts share. */
export function config(theme: Theme): Config {
  return {
    aria: false, // one description for the whole picture stands in the page; vega would give one to every mark
    font: FONT,
    view: {stroke: null},
    title: {
      anchor: 'start',
      frame: 'group',
      color: theme.ink,
      fontSize: 14,
      fontWeight: 'bold',
      offset: 12,
      subtitleColor: theme.muted,
      subtitleFontSize: 12,
      subtitlePadding: 5,
    },
    axis: {
      labelColor: theme.muted,
      labelFontSize: 12,
      titleColor: theme.muted,
      titleFontSize: 12,
      titleFontWeight: 'normal',
      gridColor: theme.grid,
      domainColor: theme.muted,
      tickColor: theme.muted,
      labelPadding: 4,
      titlePadding: 8,
    },
    legend: {
      labelColor: theme.muted,
      titleColor: theme.muted,
      titleFontWeight: 'normal',
      labelFontSize: 12,
      titleFontSize: 12,
    },
  };
}

function panel(
  chart: LossChart,
  theme: Theme,
): {width: number; height: number} & Pick<LayeredSpec, 'title' | 'data' | 'layer'> {
  const scale = lossScale(shownLosses(chart), HEIGHT);
  return {
    width: WIDTH,
    height: HEIGHT,
    title: chart.notes.length > 0 ? {text: chart.title, subtitle: [...chart.notes]} : chart.title,
    data: {values: chart.arms.flatMap(curveRows)},
    layer: [
      ...(chart.arms.some(({numSeeds}) => numSeeds > 1) ? [bandLayer(chart, scale, theme)] : []),
      ...(chart.reference ? [ruleLayer(chart.reference, theme)] : []),
      lineLayer(chart, scale, theme),
      labelLayer(chart, scale, theme),
    ],
  };
}

/** The least and greatest x of the data. */
export function xDomain({arms}: LossChart): [number, number] {
  const ends = arms.map(({points}) => points.at(-1)?.x ?? 0);
  return [0, Math.max(...ends) || 1];
}

function shownLosses({arms, reference}: LossChart): number[] {
  const losses = arms.flatMap(({points}) => points.flatMap(({low, high}) => [low, high]));
  return reference ? [...losses, reference.loss] : losses;
}

function curveRows({label, points}: ArmCurve): object[] {
  return thin(points, MAX_POINTS).map((point) => ({arm: label, ...point}));
}

function lineLayer(chart: LossChart, scale: AxisScale, theme: Theme): Layer {
  const counts = chart.arms.map(({points}) => points.length); // a single point makes no line: it is marked always
  const isMarked = counts.includes(1) || (chart.hasMarks && Math.max(...counts) <= MAX_MARKS);
  const {color} = armChannel(chart, theme);
  return {
    mark: {type: 'line', strokeWidth: 2, strokeJoin: 'round', ...(isMarked && {point: {size: 22, filled: true}})},
    encoding: {
      x: xChannel(chart),
      y: yChannel(scale, 'loss'),
      color,
      strokeDash: {
        field: 'arm',
        type: 'nominal',
        legend: null,
        scale: {domain: labels(chart), range: chart.arms.map((_, i) => armDash(i))},
      },
    },
  };
}

function bandLayer(chart: LossChart, scale: AxisScale, theme: Theme): Layer {
  return {
    mark: {type: 'area', opacity: 0.18, line: false},
    encoding: {x: xChannel(chart), y: yChannel(scale, 'low'), y2: {field: 'high'}, ...armChannel(chart, theme)},
  };
}

function ruleLayer({loss}: Reference, theme: Theme): Layer {
  return {
    data: {values: [{loss}]},
    mark: {type: 'rule', color: theme.muted, strokeDash: [5, 4]},
    encoding: {y: {field: 'loss', type: 'quantitative'}},
  };
}

/** The names of the curves, right of the plot at the height where each ends, moved apart where they would touch. */
function labelLayer(chart: LossChart, scale: AxisScale, theme: Theme): Layer {
  const ends = [
    ...chart.arms.map(({label, points}, i) => ({
      label: armDashSign(i) + label,
      loss: points.at(-1)?.loss,
      colour: armColour(theme, i),
    })),
    {label: chart.reference?.label ?? '', loss: chart.reference?.loss, colour: theme.muted},
  ].flatMap(({label, loss, colour}) => (loss === undefined ? [] : [{label, colour, up: pixelOf(scale, loss, HEIGHT)}]));
  const up = spread(
    ends.map((end) => end.up),
    LABEL_SIZE + 3,
    4,
    HEIGHT - 4,
  );
  const values = ends.map(({label, colour}, i) => ({label: cut(label), colour, y: HEIGHT - (up[i] ?? 0)}));
  return {
    data: {values},
    mark: {type: 'text', align: 'left', baseline: 'middle', dx: 8, fontSize: LABEL_SIZE},
    encoding: {
      x: {value: WIDTH},
      y: {field: 'y', type: 'quantitative', scale: null, axis: null},
      text: {field: 'label', type: 'nominal'},
      color: {field: 'colour', type: 'nominal', scale: null},
    },
  };
}

/** A name that fits beside the plot; vega would cut it too, but leave room for the whole. */
function cut(label: string): string {
  if (textWidth(label, LABEL_SIZE) <= LABEL_LIMIT) return label;
  const letters = [...label];
  while (textWidth(`${letters.join('')}…`, LABEL_SIZE) > LABEL_LIMIT) letters.pop();
  return `${letters.join('').trimEnd()}…`;
}

function xChannel(chart: LossChart): object {
  // d3 says G where people who count tokens say B
  const labelExpr = `replace(format(datum.value, '~s'), 'G', '${chart.x === 'flops' ? 'G' : 'B'}')`;
  return {
    field: 'x',
    type: 'quantitative',
    scale: {domain: xDomain(chart), nice: false},
    axis: {title: X_TITLES[chart.x], grid: false, tickCount: 5, tickMinStep: 1, labelExpr, labelFlush: false},
  };
}

function yChannel({type, domain, ticks, format}: AxisScale, field: 'loss' | 'low'): object {
  const title = `Cross-entropy (nats/token${type === 'log' ? ', log scale' : ''})`;
  return {
    field,
    type: 'quantitative',
    scale: {type, domain, nice: false, ...(type === 'linear' && {zero: false})},
    axis: {title, values: ticks, format, domain: false, ticks: false},
  };
}

function armChannel(chart: LossChart, theme: Theme): {color: object} {
  const range = chart.arms.map((_, i) => armColour(theme, i));
  return {color: {field: 'arm', type: 'nominal', legend: null, scale: {domain: labels(chart), range}}};
}

function labels({arms}: LossChart): string[] {
  return arms.map(({label}) => label);
}
