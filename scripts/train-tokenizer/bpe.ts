/**
 * How text is cut into words before merging: every digit alone, then GPT-2's rule between digits.
 *
 * It is the `Digits` and `ByteLevel` steps of tokenizer.json in one pattern: blanks before a digit end a piece there, so
 * that they stay together. White_Space, not `\s`, is what the Rust implementation goes by.
 */
const WORD =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?![^\p{White_Space}\p{N}])|\p{White_Space}+/gu;

/** Two neighbouring symbols that become one. Bytes are symbols 0 to 255; merge number i makes symbol 256 + i. */
export type Merge = readonly [left: number, right: number];

/** A word of the text as it stands after the merges so far, and how often the text has it. */
interface Word {
  symbols: number[];
  readonly count: number;
}

/** All places of one pair: how often the text has it, and the words it may be in (some may have lost it since). */
interface Pair {
  readonly merge: Merge;
  count: number;
  readonly words: Set<Word>;
}

type Pairs = Map<number, Pair>;

/** Key of a pair in one number; symbols stay far below it. */
const KEY_BASE = 2 ** 20;

/** How often each word occurs in the texts, cut as the tokenizer cuts them. */
export function countWords(texts: Iterable<string>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [word] of text.matchAll(WORD)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return counts;
}

/**
 * Learns byte-pair merges (Sennrich et al. 2016): again and again the most frequent pair becomes a symbol.
 *
 * Ties go to the pair with the smaller left, then the smaller right symbol, so the result is a function of the counts alone.
 * Each merge touches only the words that hold its pair; choosing it is linear in the number of different pairs.
 * @returns at most `numMerges` merges; fewer if no pair occurs twice any more.
 */
export function learnMerges(wordCounts: ReadonlyMap<string, number>, numMerges: number): Merge[] {
  const pairs = countPairs(wordCounts);
  const merges: Merge[] = [];
  while (merges.length < numMerges) {
    const best = mostFrequent(pairs);
    if (!best || best.count < 2) break;
    applyMerge(pairs, best, 256 + merges.length);
    merges.push(best.merge);
  }
  return merges;
}

/** The bytes that each symbol stands for: 256 single bytes, then one string of bytes a merge. */
export function symbolBytes(merges: readonly Merge[]): number[][] {
  const bytes = Array.from({length: 256}, (_, byte) => [byte]);
  for (const [left, right] of merges) bytes.push([...(bytes[left] ?? []), ...(bytes[right] ?? [])]);
  return bytes;
}

function countPairs(wordCounts: ReadonlyMap<string, number>): Pairs {
  const pairs: Pairs = new Map();
  for (const [text, count] of wordCounts) {
    const word = {symbols: [...Buffer.from(text)], count};
    addWord(pairs, word, count);
  }
  return pairs;
}

/** Adds `count` to every pair of a word; a negative count takes the word out again. */
function addWord(pairs: Pairs, word: Word, count: number): void {
  for (let i = 1; i < word.symbols.length; i++) {
    const pair = pairAt(pairs, word.symbols[i - 1] as number, word.symbols[i] as number);
    pair.count += count;
    if (count > 0) pair.words.add(word);
  }
}

function pairAt(pairs: Pairs, left: number, right: number): Pair {
  const key = left * KEY_BASE + right;
  const known = pairs.get(key);
  if (known) return known;
  const pair = {merge: [left, right] as const, count: 0, words: new Set<Word>()};
  pairs.set(key, pair);
  return pair;
}

function mostFrequent(pairs: Pairs): Pair | undefined {
  let best: Pair | undefined;
  for (const pair of pairs.values()) if (!best || isBefore(pair, best)) best = pair;
  return best;
}

function isBefore(a: Pair, b: Pair): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return a.merge[0] !== b.merge[0] ? a.merge[0] < b.merge[0] : a.merge[1] < b.merge[1];
}

function applyMerge(pairs: Pairs, {merge, words}: Pair, symbol: number): void {
  for (const word of words) {
    addWord(pairs, word, -word.count);
    word.symbols = merged(word.symbols, merge, symbol);
    addWord(pairs, word, word.count);
  }
  pairs.delete(merge[0] * KEY_BASE + merge[1]);
}

/** A word with every occurrence of the pair, from left to right, replaced by its symbol. */
function merged(symbols: readonly number[], [left, right]: Merge, symbol: number): number[] {
  const result: number[] = [];
  for (let i = 0; i < symbols.length; i++) {
    const isPair = symbols[i] === left && symbols[i + 1] === right;
    result.push(isPair ? symbol : (symbols[i] as number));
    if (isPair) i++;
  }
  return result;
}
