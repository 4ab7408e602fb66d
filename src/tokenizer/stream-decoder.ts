import type {Tokenizer} from './tokenizer.js';

/** Text of ids that come one at a time. */
export interface StreamDecoder {
  /** What is new in the text since the last piece; nothing while a character is not whole. */
  push(id: number): string;
  /** What is left: the bytes of a character that never became whole, as U+FFFD. */
  flush(): string;
}

/** Ids before a new one that are decoded with it: whether a word begins with a space depends on what stands before it. */
const CONTEXT = 8;
/** What a decoder makes of bytes that are no character (yet). */
const NO_CHARACTER = '\uFFFD';

/**
 * Decodes a text that goes on after `before`; special tokens are left out.
 *
 * All pieces together are what the ids give when they are decoded at once after those before.
 */
export function createStreamDecoder(
  {decode}: Pick<Tokenizer, 'decode'>,
  before: ArrayLike<number> = [],
): StreamDecoder {
  const textOf = (ids: readonly number[]): string => decode(ids, {skipSpecial: true});
  let pending = Array.from(before).slice(-CONTEXT);
  let shown = textOf(pending);
  const take = (text: string): string => {
    const piece = text.slice(shown.length);
    pending = pending.slice(-CONTEXT);
    shown = textOf(pending);
    return piece;
  };
  return {
    push: (id) => {
      pending.push(id);
      const text = textOf(pending);
      return text.endsWith(NO_CHARACTER) ? '' : take(text);
    },
    flush: () => take(textOf(pending)),
  };
}
