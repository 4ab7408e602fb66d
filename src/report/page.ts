import {escapeHtml, scriptJson} from './html.js';
import {formatCount} from './number.js';
import {SCRIPT, STYLE} from './page-style.js';
import type {Drawing} from './render.js';
import type {ReportArm, ReportRun} from './runs.js';
import {type Summary, summaryColumns, targetSentence} from './summary.js';
import {armColour, PAGE} from './theme.js';

/** A chart in the page. */
export interface Figure {
  readonly drawing: Drawing;
  /** What it shows, for readers who do not see it. */
  readonly description: string;
  /** For a loss chart: which curves it draws, and the x at its right edge. */
  readonly readout?: {readonly kind: 'validation' | 'train'; readonly end: number};
}

/** Everything that stands in the page. */
export interface PageContent {
  readonly title: string;
  readonly arms: readonly ReportArm[];
  readonly summary: Summary;
  readonly lossFigures: readonly Figure[];
  readonly loadFigures: readonly Figure[];
  /** What a reader must know before trusting the curves. */
  readonly warnings: readonly string[];
  /** Embedded as JSON: the numbers behind the pictures. */
  readonly data: unknown;
}

/**
 * The report as one HTML page that needs no network: style, pictures, numbers and script are inside.
 *
 * All names and settings come from users and are escaped; a content security policy forbids the page to load anything.
 */
export function reportPage(content: PageContent): string {
  const {title, summary, warnings, data} = content;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="generator" content="downcycle">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="lead">${escapeHtml(leadSentence(content.arms))}</p>
${warnings.map((text) => `<p class="warning">${escapeHtml(text)}</p>`).join('\n')}
<h2>Result</h2>
${summaryTable(summary)}
<p class="note">${escapeHtml(targetSentence(summary))}</p>
<h2>Loss curves</h2>
<div class="charts">${content.lossFigures.map(figure).join('\n')}</div>
${loadSection(content.loadFigures)}
<h2>What was run</h2>
${runsTable(content.arms)}
${versionsSentence(content.arms)}
${content.arms
  .flatMap(({runs}) => runs)
  .map(configDetails)
  .join('\n')}
</main>
<script type="application/json" id="report-data">${scriptJson(data)}</script>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

function leadSentence(arms: readonly ReportArm[]): string {
  const runs = arms.flatMap((arm) => arm.runs);
  const names = [...new Set(runs.map(({head}) => head.name))].join(', ');
  const tokens = Math.max(...runs.map(({train}) => train.points.at(-1)?.tokens ?? 0));
  return `${names}: ${plural(arms.length, 'arm')}, ${plural(runs.length, 'run')}, up to ${formatCount(tokens)} training tokens each.`;
}

function summaryTable(summary: Summary): string {
  const columns = summaryColumns(summary);
  const head = columns.map(({title, align}) => `<th${left(align)}>${lines(title)}</th>`).join('');
  const rows = summary.rows.map((row, i) => {
    const cells = columns.map(
      ({cell, align}, c) => `<td${left(align)}>${c === 0 ? swatch(i) : ''}${escapeHtml(cell(row))}</td>`,
    );
    return `<tr>${cells.join('')}</tr>`;
  });
  return table(head, rows);
}

function figure({drawing, description, readout}: Figure): string {
  const {svg, plot, width} = drawing;
  const numbers: Readonly<Record<string, string | number>> = readout
    ? {...plot, total: width, end: readout.end, kind: readout.kind}
    : {};
  const attributes = Object.entries(numbers).map(([name, value]) => ` data-${name}="${value}"`);
  const image = `<div role="img" aria-label="${escapeHtml(description)}">${svg}</div>`;
  const rest = readout ? '<i class="cursor"></i></div><output></output>' : '</div>';
  return `<figure${attributes.join('')}><div class="picture">${image}${rest}</figure>`;
}

function loadSection(figures: readonly Figure[]): string {
  if (figures.length === 0) return '';
  return `<h2>Expert load</h2>
<p class="note">Tokens each routed expert got, over the fair share of its layer: 1 is balance, 0 an expert that is never chosen.</p>
<div class="charts">${figures.map(figure).join('\n')}</div>`;
}

function runsTable(arms: readonly ReportArm[]): string {
  const titles = ['arm', 'run', 'seed', 'trainable\nparams', 'device', 'config hash'];
  const aligned = ['left', 'left', 'right', 'right', 'left', 'left'] as const;
  const head = titles.map((title, c) => `<th${left(aligned[c])}>${lines(title)}</th>`).join('');
  const rows = arms.flatMap(({label, runs}, i) =>
    runs.map(({head: run, name}) => {
      const cells = [
        label,
        name,
        String(run.seed),
        formatCount(run.parameters.trainable),
        run.device,
        run.configHash.slice(0, 12),
      ];
      return `<tr>${cells.map((cell, c) => `<td${left(aligned[c])}>${c === 0 ? swatch(i) : ''}${escapeHtml(cell)}</td>`).join('')}</tr>`;
    }),
  );
  return table(head, rows);
}

/** The versions of every run, once if they agree. */
function versionsSentence(arms: readonly ReportArm[]): string {
  const texts = arms
    .flatMap(({runs}) => runs)
    .map(({head}) =>
      Object.entries(head.versions)
        .map(([k, v]) => `${k} ${v}`)
        .join(', '),
    );
  const distinct = [...new Set(texts)];
  const note = distinct.length > 1 ? 'The runs were made with different versions: ' : 'Versions: ';
  return `<p class="note">${escapeHtml(`${note}${distinct.join('; ')}.`)}</p>`;
}

function configDetails({name, config, train}: ReportRun): string {
  if (config === null) return '';
  const title = `Settings of ${train.label} (${name})`;
  return `<details><summary>${escapeHtml(title)}</summary><pre>${escapeHtml(config)}</pre></details>`;
}

function table(head: string, rows: readonly string[]): string {
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>\n${rows.join('\n')}\n</tbody></table></div>`;
}

function swatch(index: number): string {
  return `<i class="swatch" style="background:${armColour(PAGE, index)}"></i>`;
}

function left(align: 'left' | 'right' | undefined): string {
  return align === 'left' ? ' class="left"' : '';
}

function lines(title: string): string {
  return title.split('\n').map(escapeHtml).join('<br>');
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
