// Times tokenizing of text, ours and Hugging Face's in turns: npm run bench:tokenize -- --help
import {execFile} from 'node:child_process';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {availableParallelism, tmpdir} from 'node:os';
import {join} from 'node:path';
import {Readable} from 'node:stream';
import {promisify} from 'node:util';
import {Command} from '@commander-js/extra-typings';
import {encodeSamples} from '../../src/data/encode-stream.js';
import type {Sample} from '../../src/data/sample.js';
import {readDocuments} from '../../src/data/source.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {findPackage} from './python.js';
import {runScript} from './run-script.js';

const MODEL = 'checkpoints/dense-4m';
const ROUNDS = 2;

interface Timing {
  readonly tokens: number;
  readonly seconds: number;
}

async function ours(documents: readonly string[], threads: number): Promise<Timing> {
  const tokenizer = await loadTokenizer(MODEL);
  const start = performance.now();
  let tokens = 0;
  const samples = Readable.from(documents.map((text): Sample => ({kind: 'text', text})));
  const encoded = encodeSamples(samples, tokenizer, {special: 'text', loss: 'all'}, threads);
  for await (const {ids} of encoded) tokens += ids.length - 1; // less the end token
  return {tokens, seconds: (performance.now() - start) / 1000};
}

async function theirs(python: string, file: string, parallel: boolean): Promise<Timing> {
  const script = join(import.meta.dirname, 'hf_tokenize.py');
  const env = {...process.env, TOKENIZERS_PARALLELISM: String(parallel)};
  const {stdout} = await promisify(execFile)(python, [script, join(MODEL, 'tokenizer.json'), file], {env});
  return JSON.parse(stdout) as Timing;
}

async function main(args: readonly string[]): Promise<void> {
  const {text: path} = new Command('bench:tokenize')
    .description(
      "Times tokenizing with the tokenizer of checkpoints/dense-4m, ours and Hugging Face's in turns. Each of our threads loads a tokenizer of its own first: what they are worth shows on tens of megabytes. DOWNCYCLE_BENCH_PYTHON names a Python that has tokenizers.",
    )
    .option('--text <path...>', 'text, as `data.sources[].path`', ['data/*.txt'])
    .parse([...args], {from: 'user'})
    .opts();
  const threads = availableParallelism();
  const machine = await describeMachine();
  const found = await findPackage('tokenizers', process.env);
  const lines =
    found.kind === 'found'
      ? [machineLine(machine, [`tokenizers ${found.version}`]), busyWarning(machine)]
      : [machineLine(machine, []), busyWarning(machine), found.reason];
  console.log(lines.filter(Boolean).join('\n'));
  const documents: string[] = [];
  for await (const text of readDocuments({name: 'text', path})) documents.push(text);
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-bench-'));
  try {
    const file = join(folder, 'documents.jsonl');
    await writeFile(file, documents.map((text) => JSON.stringify(text)).join('\n'));
    const sides: Record<string, () => Promise<Timing>> = {
      'ours, 1 thread': () => ours(documents, 1),
      [`ours, ${threads} threads`]: () => ours(documents, threads),
      ...(found.kind === 'found' && {
        'tokenizers, 1 thread': () => theirs(found.python, file, false),
        [`tokenizers, ${threads} threads`]: () => theirs(found.python, file, true),
      }),
    };
    const timings = new Map<string, Timing[]>();
    for (let round = 0; round < ROUNDS; round++) {
      for (const [name, run] of Object.entries(sides)) timings.set(name, [...(timings.get(name) ?? []), await run()]);
    }
    console.log(`\n| side | tokens | thousand tokens a second, of ${ROUNDS} rounds |\n|---|---|---|`);
    for (const [name, rounds] of timings) {
      const rates = rounds.map(({tokens, seconds}) => (tokens / seconds / 1000).toFixed(0));
      console.log(`| ${name} | ${rounds[0]?.tokens} | ${rates.join(', ')} |`);
    }
  } finally {
    await rm(folder, {recursive: true});
  }
}

await runScript(() => main(process.argv.slice(2)));
