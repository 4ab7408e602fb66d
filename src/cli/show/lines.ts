/** A line of a summary. */
export type Line = readonly [topic: string, text: string];

/** Lines of `topic  text`; with `columns`, texts go on in a next line, under themselves, where there is no more room. */
export function lines(all: readonly Line[], columns = Number.POSITIVE_INFINITY): string {
  const width = Math.max(...all.map(([topic]) => topic.length)) + 2;
  return all
    .map(([topic, text]) => topic.padEnd(width) + wrap(text, columns - width).join(`\n${' '.repeat(width)}`))
    .join('\n');
}

/** Cuts a text at spaces into parts of at most `columns` letters; a longer word is left whole. */
function wrap(text: string, columns: number): string[] {
  const parts: string[] = [];
  for (const word of text.split(' ')) {
    const longer = parts.length > 0 ? `${parts.at(-1)} ${word}` : word;
    if (parts.length > 0 && longer.length <= columns) parts[parts.length - 1] = longer;
    else parts.push(word);
  }
  return parts;
}
