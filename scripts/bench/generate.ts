// Times `downcycle generate` against generate() of transformers, in turns: npm run bench:generate -- --help
import {execFile} from 'node:child_process';
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {availableParallelism, tmpdir} from 'node:os';
import {basename, join, resolve} from 'node:path';
import {promisify} from 'node:util';
import {Command} from '@commander-js/extra-typings';
import {z} from 'zod';
import {type TableColumn, textTable} from '../../src/report/table.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {wholeNumber} from './options.js';
import {findPackage} from './python.js';
import {runScript} from './run-script.js';
import {pairRatios, spread} from './statistics.js';

const ROOT = resolve(import.meta.dirname, '../..');

/** What a side says of one text. */
const timing = z.object({
  promptTokens: z.union([z.number(), z.array(z.int()).transform(({length}) => length)]),
  tokens: z.union([z.number(), z.array(z.int()).transform(({length}) => length)]),
  seconds: z.object({prompt: z.number(), tokens: z.number()}),
});

/** Tokens a second of both parts of a text. */
interface Rates {
  readonly prompt: number;
  readonly tokens: number;
}

type Side = () => Promise<Rates>;

async function runSide(command: string, args: readonly string[]): Promise<Rates> {
  const {stdout} = await promisify(execFile)(command, [...args], {maxBuffer: 2 ** 26});
  const {promptTokens, tokens, seconds} = timing.parse(JSON.parse(stdout));
  return {prompt: promptTokens / seconds.prompt, tokens: (tokens - 1) / seconds.tokens};
}

interface Task {
  readonly model: string;
  readonly file: string;
  readonly tokens: number;
  readonly threads: number;
}

function sidesOf({model, file, tokens, threads}: Task, python: string | null): Record<string, Side> {
  const cli = join(ROOT, 'dist/cli/main.js');
  const ours = [cli, '-q', 'generate', model, '--prompt-file', file, '--max-tokens', String(tokens), '--json'];
  const script = join(import.meta.dirname, 'transformers_generate.py');
  return {
    downcycle: () => runSide(process.execPath, ours),
    ...(python !== null && {
      transformers: () => runSide(python, [script, model, file, String(tokens), String(threads)]),
    }),
  };
}

/** The first tokens of a text, as text. */
async function promptOf(model: string, text: string, count: number): Promise<string> {
  const tokenizer = await loadTokenizer(model);
  const ids = tokenizer.encode(await readFile(text, 'utf8'), {addSpecial: false});
  return tokenizer.decode(ids.subarray(0, count));
}

const COLUMNS: readonly TableColumn[] = [
  {title: 'model', align: 'left'},
  {title: 'side', align: 'left'},
  {title: 'prompt\ntokens/s', align: 'right'},
  {title: 'ours over it', align: 'right'},
  {title: 'new\ntokens/s', align: 'right'},
  {title: 'ours over it', align: 'right'},
];

function rowsOf(model: string, all: ReadonlyMap<string, readonly Rates[]>): string[][] {
  const [ours = []] = all.values();
  return [...all].map(([side, rates], i) => {
    const cells = (['prompt', 'tokens'] as const).flatMap((part) => {
      const values = rates.map((rate) => rate[part]);
      const {median, min, max} = spread(values);
      const range = `${median.toFixed(1)} (${min.toFixed(1)} to ${max.toFixed(1)})`;
      const mine = ours.map((rate) => rate[part]);
      return [range, i === 0 ? '' : pairRatios(mine, values).median.toFixed(2)];
    });
    return [basename(model), side, ...cells];
  });
}

async function measure(task: Task, python: string | null, rounds: number): Promise<Map<string, Rates[]>> {
  const sides = Object.entries(sidesOf(task, python));
  const all = new Map<string, Rates[]>(sides.map(([name]) => [name, []]));
  await sidesOf(task, null).downcycle?.(); // compiles, so that later turns find their programs
  for (let round = 0; round < rounds; round++) {
    for (const [name, side] of round % 2 === 0 ? sides : sides.toReversed()) {
      const rates = await side();
      all.get(name)?.push(rates);
      console.log(
        `${basename(task.model)} ${name}: prompt ${rates.prompt.toFixed(1)}, new ${rates.tokens.toFixed(1)} tokens/s`,
      );
    }
  }
  return all;
}

async function main(args: readonly string[]): Promise<void> {
  const {
    model: models,
    text,
    ...counts
  } = new Command('bench:generate')
    .description(
      'Times greedy text of `downcycle generate` against generate() of transformers with its cache, in turns, in float32 and on all cores: tokens of the prompt a second, and new ones after the first. Models that both can read: dense ones, and mixtures that `downcycle export` wrote. DOWNCYCLE_BENCH_PYTHON names a Python that has transformers.',
    )
    .requiredOption('--model <folder...>', 'models, one after the other')
    .option('--text <file>', 'text that prompts are the beginning of', join(ROOT, 'data/scripture.txt'))
    .option('--prompt <tokens>', 'tokens of the prompt', wholeNumber, 512)
    .option('--tokens <count>', 'new tokens', wholeNumber, 64)
    .option('--rounds <count>', 'turns of each side', wholeNumber, 5)
    .parse([...args], {from: 'user'})
    .opts();
  const machine = await describeMachine();
  const threads = availableParallelism();
  const found = await findPackage('transformers', process.env);
  if (found.kind === 'missing') console.log(found.reason);
  await promisify(execFile)(process.execPath, [join(ROOT, 'scripts/setup.mjs')], {cwd: ROOT}); // dist is of these sources
  const work = await mkdtemp(join(tmpdir(), 'downcycle-bench-'));
  try {
    const rows: string[][] = [];
    for (const name of models) {
      const model = resolve(name);
      const file = join(work, 'prompt.txt');
      await writeFile(file, await promptOf(model, text, counts.prompt));
      const task = {model, file, tokens: counts.tokens, threads};
      rows.push(...rowsOf(model, await measure(task, found.kind === 'found' ? found.python : null, counts.rounds)));
    }
    const versions = found.kind === 'found' ? [`transformers ${found.version}`] : [];
    console.log(`\n${machineLine(machine, versions)}; ${threads} threads, ${counts.rounds} rounds in turns\n`);
    console.log(textTable(COLUMNS, rows));
    const doubt = busyWarning(machine);
    if (doubt) console.log(`\n${doubt}`);
  } finally {
    await rm(work, {recursive: true, force: true});
  }
}

await runScript(() => main(process.argv.slice(2)));
