import {readLines} from './lines.js';

/** A longer document is cut at the next line end, so that memory stays bounded. */
const MAX_DOCUMENT_LENGTH = 2 ** 20;

/**
 * The documents of a plain text file: parted by two or more blank lines or by a form feed.
 *
 * Blank lines around a document are dropped; one blank line parts paragraphs and stays. A document of more than 2^20
 * characters is cut there, at the end of a line.
 */
export async function* readText(path: string): AsyncGenerator<string> {
  let lines: string[] = [];
  let length = 0;
  let blank = 0;
  const take = (): string => {
    const document = lines.slice(0, lines.length - blank).join('\n');
    lines = [];
    length = 0;
    return document;
  };
  for await (const line of readLines(path)) {
    for (const [i, piece] of line.split('\f').entries()) {
      if (i > 0 && lines.length > 0) yield take();
      const isBlank = piece.trim() === '';
      blank = isBlank ? blank + 1 : 0;
      if (isBlank && lines.length === 0) continue;
      lines.push(piece);
      length += piece.length;
      if (blank >= 2 || length > MAX_DOCUMENT_LENGTH) yield take();
    }
  }
  if (lines.length > 0) yield take();
}
