import {join, resolve} from 'node:path';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {UsageError} from '../util/errors.js';
import {type LossChart, type Reference, sideBySide} from './chart.js';
import {thin} from './curve.js';
import {loadFigures, lossCharts, lossFigures} from './figures.js';
import {type ReportOptions, reportSchema} from './options.js';
import {reportPage} from './page.js';
import {readReportRun} from './read-run.js';
import {drawSpec, type ResvgModule, svgToPng} from './render.js';
import {replaceFolder} from './replace.js';
import {groupArms, type ReportArm} from './runs.js';
import {type Summary, summarise} from './summary.js';
import {LIGHT} from './theme.js';

/** What `writeReport` takes. */
export interface WriteReportOptions {
  /** Run folders, in the order in which their arms are shown. */
  readonly runs: readonly string[];
  /** Folder to write; must not exist, unless `replace` is set and it is an older report. */
  readonly out: string;
  /** Title of the page; the name of the experiment if absent. */
  readonly title?: string | undefined;
  readonly x?: ReportOptions['x'];
  readonly smoothing?: number;
  /** A loss to compare with, drawn as a horizontal line: that of the dense parent. */
  readonly reference?: Reference | undefined;
  /** Whether an older report at `out` is replaced. */
  readonly replace?: boolean;
  /** Loads the PNG renderer; a machine without it gets no PNG. */
  readonly loadResvg?: () => Promise<ResvgModule>;
}

/** What was written. */
export interface WrittenReport {
  /** Path of the HTML page. */
  readonly page: string;
  readonly files: readonly string[];
  readonly summary: Summary;
  /** One line each: what a person should know, e.g. that no PNG could be drawn. */
  readonly notes: readonly string[];
}

const FILES = ['index.html', 'curves.svg', 'curves.png', 'curves.vl.json', 'summary.json'] as const;
/** Longer curves are stored with this many of their points. */
const STORED_POINTS = 400;
const UNITS = {tokens: 'tokens', flops: 'FLOP', steps: 'steps'} as const;

/**
 * Draws runs together: a self-contained page, their loss curves as SVG, PNG and Vega-Lite spec, and the table as JSON.
 *
 * The folder appears whole or not at all.
 * @throws UsageError if there are no runs, or one twice; DataError if a folder has no readable log with steps;
 * EnvironmentError if `out` exists and is not to be replaced.
 */
export async function writeReport(options: WriteReportOptions): Promise<WrittenReport> {
  checkRuns(options.runs);
  const {x, smoothing} = reportSchema.parse({x: options.x, smoothing: options.smoothing});
  const arms = groupArms(await Promise.all(options.runs.map(readReportRun)));
  const charts = lossCharts(arms, {x, smoothing, reference: options.reference});
  const summary = summarise(arms);
  const title = options.title ?? defaultTitle(arms);
  const data = reportData({title, x, smoothing, reference: options.reference ?? null, arms, charts, summary});
  const warnings = runWarnings(arms);
  const page = reportPage({
    ...{title, arms, summary, warnings, data},
    lossFigures: await lossFigures(charts),
    loadFigures: await loadFigures(arms),
  });
  const fill = (folder: string): Promise<Filled> => writeFiles(folder, {page, charts, data, load: options.loadResvg});
  const {files, notes} = options.replace
    ? await replaceFolder(options.out, FILES, fill)
    : await writeFolderAtomic(options.out, fill);
  const paths = files.map((file) => join(options.out, file));
  return {page: join(options.out, 'index.html'), files: paths, summary, notes: [...warnings, ...notes]};
}

interface Filled {
  readonly files: readonly string[];
  readonly notes: readonly string[];
}

interface FileContents {
  readonly page: string;
  readonly charts: readonly LossChart[];
  readonly data: object;
  readonly load: WriteReportOptions['loadResvg'];
}

async function writeFiles(folder: string, {page, charts, data, load}: FileContents): Promise<Filled> {
  const spec = sideBySide(charts, LIGHT);
  const {svg} = await drawSpec(spec, 'curves');
  const image = await svgToPng(svg, load);
  const contents: [(typeof FILES)[number], string | Uint8Array][] = [
    ['index.html', page],
    ['curves.svg', `${svg}\n`],
    ...('png' in image ? [['curves.png', image.png] as ['curves.png', Uint8Array]] : []),
    ['curves.vl.json', `${JSON.stringify(spec)}\n`],
    ['summary.json', `${JSON.stringify(data, null, 1)}\n`],
  ];
  for (const [name, content] of contents) await writeFileAtomic(join(folder, name), content);
  return {files: contents.map(([name]) => name), notes: 'missing' in image ? [image.missing] : []};
}

function checkRuns(runs: readonly string[]): void {
  if (runs.length === 0) throw new UsageError('No run folders were given; there is nothing to draw.');
  const paths = runs.map((run) => resolve(run));
  const twice = runs.find((_, i) => paths.indexOf(paths[i] ?? '') !== i);
  if (twice !== undefined) throw new UsageError(`${twice} is given twice.`, {hint: 'Give each run folder once.'});
}

function defaultTitle(arms: readonly ReportArm[]): string {
  const names = new Set(arms.flatMap(({runs}) => runs.map(({head}) => head.name)));
  return `${[...names].join(', ')}: loss curves`;
}

/** Runs that a reader must not take for finished or healthy ones. */
function runWarnings(arms: readonly ReportArm[]): string[] {
  return arms.flatMap(({label, runs}) =>
    runs.flatMap(({name, hasDiverged, end, train}) => {
      const at = `at step ${train.points.at(-1)?.step ?? 0}`;
      if (hasDiverged) return [`${label} (${name}) diverged: its loss is not a number ${at}.`];
      return end === 'completed' || end === 'early'
        ? []
        : [`${label} (${name}) has not run to its end: it stands ${at}.`];
    }),
  );
}

interface DataSource {
  readonly title: string;
  readonly x: ReportOptions['x'];
  readonly smoothing: number;
  readonly reference: Reference | null;
  readonly arms: readonly ReportArm[];
  readonly charts: readonly LossChart[];
  readonly summary: Summary;
}

/** The numbers behind the page: `summary.json`, and what the page embeds. */
function reportData({arms, charts, summary, ...settings}: DataSource): object {
  const curve = (kind: LossChart['kind'], i: number): readonly object[] =>
    thin(charts.find((chart) => chart.kind === kind)?.arms[i]?.points ?? [], STORED_POINTS);
  return {
    kind: 'downcycle-report',
    version: 1,
    ...settings,
    unit: UNITS[settings.x],
    colours: LIGHT.arms.length,
    ...summary,
    arms: arms.map(({label, runs}, i) => ({
      label,
      runs: runs.map(({name, head, end}) => ({run: name, ...runHead(head), end})),
      validation: curve('validation', i),
      train: curve('train', i),
      load: runs[0]?.load ?? [],
    })),
  };
}

function runHead({
  name,
  arm,
  configHash,
  seed,
  versions,
  device,
  parameters,
}: ReportArm['runs'][number]['head']): object {
  return {name, arm, configHash, seed, versions, device, parameters};
}
