import {createHash} from 'node:crypto';

/** Pieces of long texts end at the first blank line past this many characters. */
const PIECE_CHARACTERS = 3000;
/** Above this share of digits a text is a table of numbers. */
const MOST_DIGITS = 0.2;
/** The character that decoders put where bytes were not text. */
const REPLACEMENT = '\ufffd';

/** One spelling for what is only typography: line ends, blanks at line ends, form feeds, runs of empty lines. */
export function normalise(text: string): string {
  return text
    .normalize('NFC')
    .replace(/\r\n?/g, '\n')
    .replace(/[\f\v]/g, '')
    .replace(/\u00a0/g, ' ')
    .replace(/[\u200b\ufeff]/g, '')
    .replace(/[ \t]+$/gm, '')
    .replace(/\n{3,}/g, '\n\n')
    .replace(/^\n+|\s+$/g, '');
}

/** Moves web hosts and mail addresses to example.org: a model should not learn to recite them. */
export function hideAddresses(text: string): string {
  return text
    .replace(/\b[\w.%+-]+@[\w-]+(\.[\w-]+)+\b/g, 'someone@example.org')
    .replace(/\b(https?|ftp):\/\/[\w-]+(\.[\w-]+)+/g, '$1://example.org')
    .replace(/\b([\w-]+\.)+(org|com|net)\b/g, 'example.org');
}

/** Whether a document is text to learn from: long enough, not a table of numbers, not badly decoded. */
export function isText(document: string): boolean {
  const characters = document.replace(/\s/g, '').length;
  const digits = document.match(/\d/g)?.length ?? 0;
  return characters >= 150 && digits <= MOST_DIGITS * characters && !document.includes(REPLACEMENT);
}

/** Cuts a text at blank lines into pieces of about `PIECE_CHARACTERS`; their concatenation is the text. */
export function pieces(text: string): string[] {
  const found: string[] = [];
  let piece = '';
  for (const paragraph of text.split(/(?<=\n\n)/)) {
    piece += paragraph;
    if (piece.length < PIECE_CHARACTERS) continue;
    found.push(piece);
    piece = '';
  }
  return piece === '' ? found : [...found, piece];
}

/**
 * Picks documents spread evenly over the source until `bytes` are full, whole documents in their old order.
 *
 * The pick goes by a hash of the text: it needs no seed, and one changed document moves no other. It is not the bare hash
 * of the text, for that one parts validation from training (`isValidation`), and a pick must not bend its share.
 */
export function spread(documents: readonly string[], bytes: number): string[] {
  const ranked = [...new Set(documents)].map((text, place) => ({text, place, rank: sha256(`spread\n${text}`)}));
  ranked.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  let left = bytes;
  const picked = ranked.filter(({text}) => {
    const size = Buffer.byteLength(text) + SEPARATOR.length;
    if (size > left) return false;
    left -= size;
    return true;
  });
  return picked.sort((a, b) => a.place - b.place).map(({text}) => text);
}

/** Between two documents of a .txt file stands a line that holds a form feed and nothing else. */
const SEPARATOR = '\n\f\n';

/** The content of a .txt file. */
export function join(documents: readonly string[]): string {
  return `${documents.join(SEPARATOR)}\n`;
}

/** The documents of a .txt file that `join` made. */
export function split(file: string): string[] {
  return file.replace(/\n$/, '').split(SEPARATOR);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
