import {execFile} from 'node:child_process';
import {existsSync} from 'node:fs';
import {mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {promisify} from 'node:util';
import fc from 'fast-check';
import {afterAll, beforeAll, describe, expect, it} from 'vitest';
import {split} from '../../scripts/corpus/text.js';
import {countWords, learnMerges} from '../../scripts/train-tokenizer/bpe.js';
import {tokenizerConfig, tokenizerJson} from '../../scripts/train-tokenizer/hugging-face.js';
import {loadTokenizer, type Tokenizer} from '../../src/tokenizer/tokenizer.js';
import rustIds from './rust-ids.json' with {type: 'json'};

const ROOT = join(import.meta.dirname, '../..');
const SHIPPED = join(ROOT, 'checkpoints/dense-4m');
const [a, b, c, x, y] = [...Buffer.from('abcxy')] as [number, number, number, number, number];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-'));
});
afterAll(() => rm(folder, {recursive: true}));

describe('learnMerges', () => {
  it('merges the most frequent pair of what the merges before it left', () => {
    // ab 5+3, bc 3+4; then bc 4, (ab)c 3.
    const merges = learnMerges(new Map(Object.entries({ab: 5, abc: 3, bc: 4})), 10);
    expect(merges).toEqual([
      [a, b],
      [b, c],
      [256, c],
    ]);
  });

  it('gives a tie to the pair of smaller symbols, whatever order the words come in', () => {
    expect(
      learnMerges(
        new Map([
          ['xy', 2],
          ['xa', 2],
          ['ab', 2],
        ]),
        3,
      ),
    ).toEqual([
      [a, b],
      [x, a],
      [x, y],
    ]);
  });

  it('merges a run of one symbol from the left', () => {
    expect(learnMerges(new Map([['aaa', 2]]), 2)).toEqual([
      [a, a],
      [256, a],
    ]);
  });

  it('leaves alone what occurs once', () => {
    expect(learnMerges(new Map([['abc', 1]]), 10)).toEqual([]);
  });

  it('equals a count of all pairs from scratch before each merge', () => {
    const words = fc.array(
      fc.tuple(fc.string({unit: fc.constantFrom('a', 'b', 'c'), maxLength: 8}), fc.integer({min: 1, max: 4})),
    );
    fc.assert(
      fc.property(words, (list) => {
        expect(learnMerges(new Map(list), 20)).toEqual(slowMerges(new Map(list), 20));
      }),
    );
  });
});

describe('countWords', () => {
  it('keeps a blank with the word after it, every digit alone, and the other blanks together', () => {
    expect([...countWords(["don't x=12  3\n  end "]).keys()]).toEqual([
      'don',
      "'t",
      ' x',
      '=',
      '1',
      '2',
      '  ',
      '3',
      '\n ',
      ' end',
      ' ',
    ]);
  });

  it('adds up over texts without joining them', () => {
    expect(countWords(['ab', 'ab c'])).toEqual(
      new Map([
        ['ab', 2],
        [' c', 1],
      ]),
    );
  });
});

describe('a trained tokenizer', () => {
  const texts = ['the cat and the hat', 'that bat: 12 12 12', 'ünïcödé ünïcödé'];

  it('gives back any text', async () => {
    const tokenizer = await trained(texts, 40);
    fc.assert(
      fc.property(fc.string({unit: 'binary'}), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
    );
  });

  it('does not depend on the order of the texts', () => {
    const forth = learnMerges(countWords(texts), 40);
    expect(learnMerges(countWords([...texts].reverse()), 40)).toEqual(forth);
  });

  it('cuts text as training did, so that every learned word is one token', async () => {
    const tokenizer = await trained(['12  34 the   the', '12  34 the   the'], 1000);
    const words = countWords(['12  34 the   the']);
    const expected = [...words].reduce((sum, [, count]) => sum + count, 0);
    expect(tokenizer.encode('12  34 the   the')).toHaveLength(expected);
  });
});

describe('the shipped tokenizer', () => {
  it('is what the committed text gives', async () => {
    const data = join(ROOT, 'data');
    const names = (await readdir(data)).filter((name) => name.endsWith('.txt')).sort();
    const texts = await Promise.all(names.map(async (name) => split(await readFile(join(data, name), 'utf8'))));
    const shipped: unknown = JSON.parse(await readFile(join(SHIPPED, 'tokenizer.json'), 'utf8'));
    expect(tokenizerJson(learnMerges(countWords(texts.flat()), 4096 - 257))).toEqual(shipped);
  });

  it('has every byte and, as id 0, the token that begins, ends and pads', async () => {
    const tokenizer = await loadTokenizer(SHIPPED);
    expect(tokenizer).toMatchObject({vocabSize: 4096, bosId: 0, eosId: 0, addsBos: false});
    const {model} = tokenizerJson([]);
    const letters = new Set(Object.keys(model.vocab).filter((name) => [...name].length === 1));
    const shipped = JSON.parse(await readFile(join(SHIPPED, 'tokenizer.json'), 'utf8')) as {model: typeof model};
    expect(letters.size).toBe(256);
    expect(shipped.model.vocab).toMatchObject(model.vocab);
  });

  it.each(rustIds)('gives the ids of the Rust implementation: $text', async ({text, ids}) => {
    expect([...(await loadTokenizer(SHIPPED)).encode(text)]).toEqual(ids);
  });
});

describe('the training script', () => {
  it('writes a tokenizer and reports how well it fits', async () => {
    const {text, out} = await smallText('fits');
    const {stdout} = await script(['--vocab', '259', '--out', out, text]);
    expect(stdout).toBe('fits.txt: 3 tokens, 3.33 bytes a token\n');
    expect((await loadTokenizer(out)).vocabSize).toBe(259);
  });

  it('refuses a vocabulary that cannot hold the bytes', async () => {
    const {text, out} = await smallText('small');
    await expect(script(['--vocab', '256', '--out', out, text])).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--vocab 256 must be a whole number of at least 257') as string,
    });
  });

  it('refuses text that repeats too little for the vocabulary', async () => {
    const {text, out} = await smallText('poor');
    await expect(script(['--vocab', '4096', '--out', out, text])).rejects.toMatchObject({
      code: 4,
      stderr: expect.stringContaining('vocabulary of 4096: it gives 259') as string,
    });
    expect(existsSync(out)).toBe(false);
  });

  it('never overwrites', async () => {
    const {text} = await smallText('again');
    await expect(script(['--vocab', '259', '--out', SHIPPED, text])).rejects.toMatchObject({
      code: 6,
      stderr: expect.stringContaining('tokenizer.json already exists') as string,
    });
  });
});

async function trained(texts: readonly string[], numMerges: number): Promise<Tokenizer> {
  const path = await mkdtemp(join(folder, 'trained-'));
  await writeFile(
    join(path, 'tokenizer.json'),
    JSON.stringify(tokenizerJson(learnMerges(countWords(texts), numMerges))),
  );
  await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify(tokenizerConfig()));
  return loadTokenizer(path);
}

async function smallText(name: string) {
  const text = join(folder, `${name}.txt`);
  await writeFile(text, 'abab\n\f\nababab\n');
  return {text, out: join(folder, name)};
}

function script(args: readonly string[]) {
  const path = join(ROOT, 'scripts/train-tokenizer.ts');
  return promisify(execFile)(process.execPath, ['--import', 'tsx', path, ...args], {cwd: ROOT});
}

/** BPE as its definition says it, over strings of symbols. */
function slowMerges(wordCounts: ReadonlyMap<string, number>, numMerges: number): [number, number][] {
  let words = [...wordCounts].map(([word, count]) => ({symbols: [...Buffer.from(word)], count}));
  const merges: [number, number][] = [];
  while (merges.length < numMerges) {
    const counts = new Map<string, number>();
    for (const {symbols, count} of words) {
      for (let i = 1; i < symbols.length; i++) {
        const key = `${symbols[i - 1]} ${symbols[i]}`;
        counts.set(key, (counts.get(key) ?? 0) + count);
      }
    }
    const pairs = [...counts].map(([key, count]) => ({pair: key.split(' ').map(Number) as [number, number], count}));
    pairs.sort((p, q) => q.count - p.count || p.pair[0] - q.pair[0] || p.pair[1] - q.pair[1]);
    const best = pairs[0];
    if (!best || best.count < 2) return merges;
    words = words.map((word) => ({...word, symbols: replaceLeftToRight(word.symbols, best.pair, 256 + merges.length)}));
    merges.push(best.pair);
  }
  return merges;
}

function replaceLeftToRight(symbols: readonly number[], [left, right]: [number, number], symbol: number): number[] {
  const at = symbols.findIndex((value, i) => value === left && symbols[i + 1] === right);
  if (at < 0) return [...symbols];
  return [...symbols.slice(0, at), symbol, ...replaceLeftToRight(symbols.slice(at + 2), [left, right], symbol)];
}
