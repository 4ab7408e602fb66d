import {type LossChart, lossSpec, type Reference, xDomain} from './chart.js';
import {loadSpec} from './heat-map.js';
import {formatLoss} from './number.js';
import type {ReportOptions} from './options.js';
import type {Figure} from './page.js';
import {drawSpec} from './render.js';
import {armCurve, type ReportArm} from './runs.js';
import {PAGE} from './theme.js';

/** What the loss charts of a report depend on. */
export interface ChartOptions extends Pick<ReportOptions, 'x' | 'smoothing'> {
  readonly reference?: Reference | undefined;
}

/** The loss charts of a comparison: validation, where there is any, and smoothed training loss. */
export function lossCharts(arms: readonly ReportArm[], {x, smoothing, reference}: ChartOptions): LossChart[] {
  const validation = arms.map((arm) => armCurve(arm, 'validation', x));
  const train = arms.map((arm) => armCurve(arm, 'train', x, smoothing));
  const average = smoothing > 0 ? `Every step, moving average with ${smoothing} of the past` : 'Every step, as logged';
  const heldOut = 'Held-out rows, at every evaluation';
  const charts: LossChart[] = [
    {
      kind: 'validation',
      title: 'Validation loss',
      x,
      arms: validation,
      hasMarks: true,
      reference,
      notes: [heldOut, ...seedNote(arms)],
    },
    {kind: 'train', title: 'Training loss', x, arms: train, hasMarks: false, notes: [average, ...seedNote(arms)]},
  ];
  return charts.filter((chart) => chart.arms.some(({points}) => points.length > 0));
}

/** The loss charts drawn for the page. */
export function lossFigures(charts: readonly LossChart[]): Promise<Figure[]> {
  return Promise.all(
    charts.map(async (chart) => ({
      drawing: await drawSpec(lossSpec(chart, PAGE), chart.kind),
      description: describeChart(chart),
      readout: {kind: chart.kind, end: xDomain(chart)[1]},
    })),
  );
}

/** The expert-load heat maps drawn for the page, one for each arm that routes; of several seeds the first is shown. */
export function loadFigures(arms: readonly ReportArm[]): Promise<Figure[]> {
  const drawn = arms.map(async ({label, runs: [run]}, i): Promise<Figure[]> => {
    if (!run || run.load.length === 0) return [];
    const span = run.numLoadSteps === 1 ? 'The last step' : `Mean of the last ${run.numLoadSteps} steps`;
    const spec = loadSpec({label, load: run.load}, PAGE, `${span}, seed ${run.head.seed}`);
    const description = `Heat map of expert load for ${label}: ${run.load.length} MoE layers.`;
    return [{drawing: await drawSpec(spec, `load-${i}`), description}];
  });
  return Promise.all(drawn).then((figures) => figures.flat());
}

function seedNote(arms: readonly ReportArm[]): string[] {
  const counts = [...new Set(arms.map(({runs}) => runs.length))];
  if (counts.every((count) => count === 1)) return [];
  const seeds = counts.length === 1 ? `${counts[0]} seeds` : `up to ${Math.max(...counts)} seeds`;
  return [`Line: mean of ${seeds}; band: least to greatest`];
}

function describeChart({title, arms, x}: LossChart): string {
  const ends = arms.flatMap(({label, points}) => {
    const [first, last] = [points[0], points.at(-1)];
    return first && last ? [`${label} from ${formatLoss(first.loss)} to ${formatLoss(last.loss)}`] : [];
  });
  return `${title} against ${x}: ${ends.join(', ')} nats a token.`;
}
