import {type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseDocument} from 'yaml';
import {ConfigError} from '../util/errors.js';
import type {PathStep} from './json-schema.js';

/** Errors of YAML that are shown: of a file of another kind there are hundreds. */
const MOST_FAULTS = 5;

/** A parsed config file that knows where everything stands. */
export interface ConfigSource {
  readonly file: string;
  readonly value: unknown;
  /** `file:line:column` of a value or its key; of the section it is missing from if it is not there. */
  at(path: readonly PathStep[], part?: 'value' | 'key'): string;
  /** Whether the file itself has something at `path`. */
  has(path: readonly PathStep[]): boolean;
}

/** How far a path could be followed, and the key and value found there. */
interface Found {
  readonly key: Node | null;
  readonly value: Node | null;
  readonly isWhole: boolean;
}

/**
 * Parses the text of a config file.
 *
 * @param hasLines false for a text that no person wrote: places in it are the name of the file alone.
 * @throws ConfigError with the line and column of every error if it is not YAML, or not a section of keys.
 */
export function parseSource(text: string, file: string, hasLines = true): ConfigSource {
  const lines = new LineCounter();
  const document = parseDocument(text, {lineCounter: lines, prettyErrors: false});
  const where = (offset: number): string => {
    const {line, col} = lines.linePos(offset);
    if (!hasLines) return file;
    return `${file}:${line}:${col}`;
  };
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    const shown = faults.slice(0, MOST_FAULTS).map((one) => fault(where(one.pos[0]), one.message));
    const more = faults.length - shown.length;
    throw new ConfigError(
      [...shown, ...(more > 0 ? [`${file}: ${more} more like these; is it a YAML file?`] : [])].join('\n'),
    );
  }
  const start = document.contents?.range?.[0] ?? 0;
  if (!isMap(document.contents)) {
    throw new ConfigError(
      `${where(start)}: ${document.contents ? 'this is no section of keys' : 'the file is empty'}.`,
      {
        hint: 'A config needs at least `model` and `data`; see configs/quickstart.yaml.',
      },
    );
  }
  return {
    file,
    value: plainValue(document, where(start)),
    at: (path, part = 'value') => where(offsetOf(follow(document, path), part) ?? start),
    has: (path) => follow(document, path).isWhole,
  };
}

function fault(where: string, message: string): string {
  const [first = ''] = message.split('\n');
  return `${where}: ${first.replace(/[.:]?$/, '.')}`;
}

/** Aliases can be nested so that a short file means gigabytes; the parser refuses those. */
function plainValue(document: Document, where: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    throw new ConfigError(`${where}: ${error instanceof Error ? error.message : String(error)}.`, {cause: error});
  }
}

function follow(document: Document, path: readonly PathStep[]): Found {
  let found: Found = {key: null, value: document.contents, isWhole: true};
  for (const step of path) {
    const next = child(document, found.value, step);
    if (!next) return {...found, isWhole: false};
    found = next;
  }
  return found;
}

function child(document: Document, node: Node | null, step: PathStep): Found | null {
  const parent = isAlias(node) ? node.resolve(document) : node;
  if (isSeq(parent) && typeof step === 'number') {
    const value = parent.items[step] as Node | undefined;
    return value ? {key: value, value, isWhole: true} : null;
  }
  if (!isMap(parent)) return null;
  const pair = parent.items.find(({key}) => isScalar(key) && String(key.value) === String(step)) as
    | Pair<Node, Node | null>
    | undefined;
  return pair ? {key: pair.key, value: pair.value, isWhole: true} : null;
}

/** Where a missing key should have been is best shown by the key of the section that lacks it. */
function offsetOf({key, value, isWhole}: Found, part: 'value' | 'key'): number | undefined {
  const node = isWhole && part === 'value' ? (value ?? key) : key;
  return node?.range?.[0];
}
