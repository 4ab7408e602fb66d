import {escapeHtml} from './html.js';
import {STYLE} from './page-style.js';
import type {TableColumn} from './table.js';

/** What stands in a page without a script. */
export interface PlainPage {
  readonly title: string;
  /** What a reader must know first. */
  readonly lead: string;
  /** HTML below it. */
  readonly body: string;
}

/** One HTML page that needs no network and runs no script; a content security policy forbids it to load anything. */
export function plainPage({title, lead, body}: PlainPage): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="lead">${escapeHtml(lead)}</p>
${body}
</main>
</body>
</html>
`;
}

/** A table as HTML; line breaks in titles are kept. */
export function htmlTable(columns: readonly TableColumn[], rows: readonly (readonly string[])[]): string {
  const left = columns.map(({align}) => (align === 'left' ? ' class="left"' : ''));
  const head = columns.map(({title}, c) => `<th${left[c]}>${escapeHtml(title).replaceAll('\n', '<br>')}</th>`);
  const body = rows.map((row) => `<tr>${row.map((cell, c) => `<td${left[c]}>${escapeHtml(cell)}</td>`).join('')}</tr>`);
  return `<div class="scroll"><table><thead><tr>${head.join('')}</tr></thead><tbody>\n${body.join('\n')}\n</tbody></table></div>`;
}

/** A picture, and what it shows for readers who do not see it. */
export function plainFigure(svg: string, description: string): string {
  return `<figure><div class="picture"><div role="img" aria-label="${escapeHtml(description)}">${svg}</div></div></figure>`;
}
