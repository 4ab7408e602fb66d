import {runInNewContext} from 'node:vm';

/** The JSON inside a report page. */
export const embedded = (html: string): string => /id="report-data">(.*?)<\/script>/s.exec(html)?.[1] ?? '';

interface Part {
  textContent: string;
  style: Record<string, string>;
  parts: Part[];
  appendChild(part: Part): Part;
}

function part(): Part {
  const made: Part = {
    textContent: '',
    style: {},
    parts: [],
    appendChild: (child) => {
      made.parts.push(child);
      return child;
    },
  };
  return made;
}

/** Runs the page's script on a document of the few parts it asks for, and points into the first chart. */
export function pointAt(html: string, share: number): string[] {
  const attributes = /<figure([^>]*)>/.exec(html)?.[1] ?? '';
  const dataset: Record<string, string> = {};
  for (const [, name = '', value = ''] of attributes.matchAll(/data-(\w+)="([^"]*)"/g)) dataset[name] = value;
  const {left, width, total} = dataset;
  let move: (event: {clientX: number}) => void = () => undefined;
  const picture = {
    getBoundingClientRect: () => ({left: 100, width: 2 * Number(total)}),
    addEventListener: (name: string, listener: typeof move) => {
      if (name === 'pointermove') move = listener;
    },
  };
  const output = part();
  const parts: Record<string, unknown> = {'.picture': picture, '.cursor': part(), output};
  const document = {
    getElementById: () => ({textContent: embedded(html)}),
    querySelectorAll: () => [{dataset, querySelector: (name: string) => parts[name]}],
    createElement: part,
  };
  runInNewContext(/<script>(.*?)<\/script>/s.exec(html)?.[1] ?? '', {document});
  move({clientX: 100 + 2 * (Number(left) + share * Number(width))});
  return output.parts.map(({textContent}) => textContent);
}
