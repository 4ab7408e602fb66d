/** What a text turned out to be: a value, or where and why it stops being JSON. */
export type JsonText =
  | {readonly kind: 'value'; readonly value: unknown}
  | {readonly kind: 'fault'; readonly line: number; readonly column: number; readonly reason: string};

type Expected =
  | 'a value'
  | 'a value or "]"'
  | 'a quoted name'
  | 'a quoted name or "}"'
  | '":"'
  | '"," or the end of the list or object'
  | 'nothing more';

const BLANK = /[ \t\r\n]*/y;
const TOKEN =
  /[{}[\],:]|"[ !#-[\]-\uffff]*(?:\\(?:["\\/bfnrt]|u[\da-fA-F]{4})[ !#-[\]-\uffff]*)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;

/** Parses JSON; a fault is told by line and column (from 1), which `JSON.parse` itself does not promise. */
export function parseJson(text: string): JsonText {
  try {
    return {kind: 'value', value: JSON.parse(text) as unknown};
  } catch {
    return findFault(text);
  }
}

/** The first name that stands twice in an object of objects, or undefined. `JSON.parse` would keep the last in silence. */
export function repeatedName(json: string): string | undefined {
  const seen = new Set<string>();
  let depth = 0;
  for (const [token] of json.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}]/g)) {
    if (token === '{') depth++;
    else if (token === '}') depth--;
    else if (depth === 1) {
      const name = JSON.parse(token) as string;
      if (seen.has(name)) return name;
      seen.add(name);
    }
  }
  return undefined;
}

function findFault(text: string): JsonText {
  const open: string[] = [];
  let expected: Expected = 'a value';
  let at = match(BLANK, text, 0).length;
  while (at < text.length) {
    const token = match(TOKEN, text, at);
    const next: Expected | null = token === '' ? null : follow(expected, token, open);
    if (!next) break;
    expected = next;
    at += token.length;
    at += match(BLANK, text, at).length;
  }
  return {kind: 'fault', ...position(text, at), reason: `expected ${expected}, found ${quote(text, at)}`};
}

function match(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? '';
}

/** What may come after `token`, or null if the token may not stand here. `open` is the stack of open brackets. */
function follow(expected: Expected, token: string, open: string[]): Expected | null {
  switch (expected) {
    case 'a value':
      return startValue(token, open);
    case 'a value or "]"':
      return token === ']' ? endValue(open, '[') : startValue(token, open);
    case 'a quoted name':
      return token.startsWith('"') ? '":"' : null;
    case 'a quoted name or "}"':
      return token === '}' ? endValue(open, '{') : token.startsWith('"') ? '":"' : null;
    case '":"':
      return token === ':' ? 'a value' : null;
    case '"," or the end of the list or object':
      if (token === ',') return open.at(-1) === '{' ? 'a quoted name' : 'a value';
      return token === '}' ? endValue(open, '{') : token === ']' ? endValue(open, '[') : null;
    case 'nothing more':
      return null;
  }
}

function startValue(token: string, open: string[]): Expected | null {
  if (token === '{' || token === '[') {
    open.push(token);
    return token === '{' ? 'a quoted name or "}"' : 'a value or "]"';
  }
  return '}],:'.includes(token) ? null : afterValue(open);
}

function endValue(open: string[], bracket: string): Expected | null {
  if (open.at(-1) !== bracket) return null;
  open.pop();
  return afterValue(open);
}

function afterValue(open: readonly string[]): Expected {
  return open.length > 0 ? '"," or the end of the list or object' : 'nothing more';
}

function position(text: string, at: number): {line: number; column: number} {
  const before = text.slice(0, at).split('\n');
  return {line: before.length, column: (before.at(-1) ?? '').length + 1};
}

function quote(text: string, at: number): string {
  const [found] = /^\S{0,16}/.exec(text.slice(at, at + 16)) ?? [''];
  return at >= text.length ? 'the end of the file' : `\`${found}\``;
}

/** JSON with lines and indents, but each list of numbers on one line: a matrix has a line a row. */
export function readableJson(value: unknown): string {
  // a line break is never inside a string, so what is matched is a list
  return JSON.stringify(value, null, 2).replaceAll(/\[\n[-+\d.e,\s]*(?:null[-+\d.e,\s]*)*\]/g, (list) =>
    list.replaceAll(/\n\s*/g, ' ').replace('[ ', '[').replace(' ]', ']'),
  );
}
