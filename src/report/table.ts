/** A column of a text table. */
export interface TableColumn {
  readonly title: string;
  /** Numbers stand right, words left. */
  readonly align: 'left' | 'right';
}

/** How a whole line of the table is painted; the identity when there is no colour. */
export interface TableStyle {
  readonly head: (text: string) => string;
}

/**
 * Rows of cells as lines of text with aligned columns, a rule under the titles and no trailing spaces.
 *
 * A title may hold line breaks; its lines stand one above the other, the last one on the rule.
 */
export function textTable(
  columns: readonly TableColumn[],
  rows: readonly (readonly string[])[],
  style: TableStyle = {head: (text) => text},
): string {
  const titles = titleLines(columns);
  const widths = columns.map((_, i) => Math.max(...[...titles, ...rows].map((row) => displayWidth(row[i] ?? ''))));
  const line = (cells: readonly string[]): string =>
    columns
      .map(({align}, i) => pad(cells[i] ?? '', widths[i] ?? 0, align))
      .join('  ')
      .trimEnd();
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [...titles.map((row) => style.head(line(row))), rule, ...rows.map(line)].join('\n');
}

function titleLines(columns: readonly TableColumn[]): string[][] {
  const split = columns.map(({title}) => title.split('\n'));
  const height = Math.max(...split.map((lines) => lines.length));
  return Array.from({length: height}, (_, row) => split.map((lines) => lines[row - height + lines.length] ?? ''));
}

function pad(text: string, width: number, align: TableColumn['align']): string {
  const space = ' '.repeat(Math.max(0, width - displayWidth(text)));
  return align === 'left' ? text + space : space + text;
}

/** Columns a terminal gives a text: colour codes and combining marks take none, wide East Asian letters and emoji two. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const letter of stripColour(text)) {
    if (/\p{Mark}|\p{Control}|\p{Format}/u.test(letter)) continue;
    width += /\p{Script=Han}|\p{Script=Hiragana}|\p{Script=Katakana}|\p{Script=Hangul}|\p{Emoji_Presentation}/u.test(
      letter,
    )
      ? 2
      : 1;
  }
  return width;
}

/** A text without its terminal colour codes. */
export function stripColour(text: string): string {
  return text.replaceAll(new RegExp(`${String.fromCharCode(27)}\\[[0-9;]*m`, 'g'), '');
}
