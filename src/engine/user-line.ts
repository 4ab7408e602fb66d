import {fileURLToPath} from 'node:url';

/** Folders whose frames are ours or a library's, never the line a person wants to see. */
const HIDDEN = /node_modules|node:|[/\\]tfjs-[a-z-]+[/\\]src|[/\\](src|dist)[/\\](engine|op)[/\\]/;

/** `file:line:column` of the innermost caller outside the engine, the operations and every library. */
export function userLine(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 60;
  const stack = new Error().stack ?? '';
  Error.stackTraceLimit = limit;
  const frames = stack.split('\n').slice(1);
  const frame = frames.find((line) => !HIDDEN.test(line) && /:\d+:\d+/.test(line));
  const place = frame ? /\(?((?:file:\/\/)?\/[^()]*:\d+:\d+)\)?$/.exec(frame.trim())?.[1] : undefined;
  if (!place) return 'an unknown line';
  return place.startsWith('file://') ? fileURLToPath(place.replace(/(:\d+:\d+)$/, '')) + (/(:\d+:\d+)$/.exec(place)?.[1] ?? '') : place;
}
