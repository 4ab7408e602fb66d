// Trains the tokenizer of the shipped dense model: npx tsx scripts/train-tokenizer.ts [--vocab 4096] [--out folder] [text files]
import {mkdir, readdir, readFile} from 'node:fs/promises';
import {basename, join} from 'node:path';
import {parseArgs} from 'node:util';
import {loadTokenizer, type Tokenizer} from '../src/tokenizer/tokenizer.js';
import {refuseExisting, writeFileAtomic} from '../src/util/atomic.js';
import {DataError, DowncycleError, describeError, UsageError} from '../src/util/errors.js';
import {split} from './corpus/text.js';
import {countWords, learnMerges, type Merge} from './train-tokenizer/bpe.js';
import {tokenizerConfig, tokenizerJson} from './train-tokenizer/hugging-face.js';

const ROOT = join(import.meta.dirname, '..');
/** Every byte and the special token are always in. */
const FIXED_TOKENS = 257;

interface TextFile {
  readonly path: string;
  readonly documents: readonly string[];
}

async function main(): Promise<void> {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      vocab: {type: 'string', default: '4096'},
      out: {type: 'string', default: join(ROOT, 'checkpoints/dense-4m')},
    },
  });
  const files = await readFiles(positionals.length > 0 ? positionals : await committedText());
  const merges = train(files, numMerges(values.vocab));
  await save(values.out, {'tokenizer.json': tokenizerJson(merges), 'tokenizer_config.json': tokenizerConfig()});
  const tokenizer = await loadTokenizer(values.out);
  for (const file of files) console.log(report(file, tokenizer));
}

function train(files: readonly TextFile[], asked: number): Merge[] {
  const merges = learnMerges(countWords(files.flatMap(({documents}) => documents)), asked);
  if (merges.length === asked) return merges;
  throw new DataError(
    `The text repeats too little for a vocabulary of ${FIXED_TOKENS + asked}: it gives ${FIXED_TOKENS + merges.length}.`,
    {hint: 'Lower --vocab or give more text.'},
  );
}

function numMerges(vocab: string): number {
  const size = Number(vocab);
  if (Number.isInteger(size) && size >= FIXED_TOKENS) return size - FIXED_TOKENS;
  throw new UsageError(
    `--vocab ${vocab} must be a whole number of at least ${FIXED_TOKENS}: 256 bytes and one special token.`,
  );
}

async function committedText(): Promise<string[]> {
  const names = await readdir(join(ROOT, 'data'));
  return names
    .filter((name) => name.endsWith('.txt'))
    .sort()
    .map((name) => join(ROOT, 'data', name));
}

async function readFiles(paths: readonly string[]): Promise<TextFile[]> {
  return Promise.all(paths.map(async (path) => ({path, documents: split(await readFile(path, 'utf8'))})));
}

async function save(folder: string, files: Readonly<Record<string, object>>): Promise<void> {
  await mkdir(folder, {recursive: true});
  for (const name of Object.keys(files)) await refuseExisting(join(folder, name));
  for (const [name, content] of Object.entries(files)) {
    await writeFileAtomic(join(folder, name), `${JSON.stringify(content, null, 1)}\n`);
  }
}

/** How well the tokenizer fits a file, and a check that it loses nothing. */
function report({path, documents}: TextFile, tokenizer: Tokenizer): string {
  let numTokens = 0;
  let numBytes = 0;
  for (const text of documents) {
    const ids = tokenizer.encode(text);
    if (tokenizer.decode(ids) !== text) throw new Error(`${path}: a document does not survive encoding and decoding.`);
    numTokens += ids.length;
    numBytes += Buffer.byteLength(text);
  }
  return `${basename(path)}: ${numTokens} tokens, ${(numBytes / numTokens).toFixed(2)} bytes a token`;
}

try {
  await main();
} catch (error) {
  console.error(describeError(error));
  process.exitCode = error instanceof DowncycleError ? error.exitCode : 1;
}
