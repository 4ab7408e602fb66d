import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

/** Frames of libraries, never the line a person wants to see. tfjs's source maps name paths like `tfjs-core/src`. */
const LIBRARY = /node_modules|node:|tfjs-[a-z-]+[/\\]src/;

const ROOMS = dirname(dirname(fileURLToPath(import.meta.url)));
/** The rooms whose frames stand between a person's code and a native operation. */
const OURS = ['engine', 'op'].map((room) => join(ROOMS, room, '/'));

/** `file:line:column` of the innermost caller outside the engine, the operations and every library. */
export function userLine(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 60;
  const stack = new Error().stack ?? '';
  Error.stackTraceLimit = limit;
  const frames = stack.split('\n').slice(1);
  const frame = frames.find((line) => /:\d+:\d+/.test(line) && !isHidden(line));
  const place = frame ? /\(?((?:file:\/\/)?\/[^()]*:\d+:\d+)\)?$/.exec(frame.trim())?.[1] : undefined;
  if (!place) return 'an unknown line';
  return place.startsWith('file://')
    ? fileURLToPath(place.replace(/(:\d+:\d+)$/, '')) + (/(:\d+:\d+)$/.exec(place)?.[1] ?? '')
    : place;
}

function isHidden(line: string): boolean {
  return LIBRARY.test(line) || OURS.some((folder) => line.includes(folder));
}
