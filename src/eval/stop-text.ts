/** Looks for strings that end a text which comes in pieces. */
export interface StopText {
  /** The text that can be shown now: up to the string that ends it, or but for what may be the beginning of one. */
  push(piece: string): {readonly text: string; readonly isFound: boolean};
  /** What was held back. */
  flush(): string;
}

/** Finds the first of some strings, which are not empty. */
export function createStopText(stops: readonly string[]): StopText {
  let held = '';
  return {
    push: (piece) => {
      const all = held + piece;
      const [at] = stops
        .map((stop) => all.indexOf(stop))
        .filter((place) => place >= 0)
        .sort((a, b) => a - b);
      const end = at ?? all.length - beginningOf(stops, all);
      held = at === undefined ? all.slice(end) : '';
      return {text: all.slice(0, end), isFound: at !== undefined};
    },
    flush: () => {
      const rest = held;
      held = '';
      return rest;
    },
  };
}

/** Characters at the end of a text that may be the beginning of a stop, at most. */
function beginningOf(stops: readonly string[], text: string): number {
  const longest = Math.max(0, ...stops.map(({length}) => length - 1));
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(text.length - length);
    if (stops.some((stop) => stop.startsWith(end))) return length;
  }
  return 0;
}
