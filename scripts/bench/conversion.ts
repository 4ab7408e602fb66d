// Times profile + convert against the same steps in PyTorch and SciPy, in turns: npm run bench:conversion -- --help
import {execFileSync, spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdtemp, readdir, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join, resolve} from 'node:path';
import {Command} from '@commander-js/extra-typings';
import {z} from 'zod';
import {parseConfig} from '../../src/config/load.js';
import {closeShards, ensureShards} from '../../src/data/shards.js';
import {readCalibration} from '../../src/downcycle/calibration.js';
import {readNeuronMaps} from '../../src/downcycle/neuron-maps.js';
import {SHARED} from '../../src/downcycle/plan.js';
import {layoutOf} from '../../src/experiment/layout.js';
import {type TableColumn, textTable} from '../../src/report/table.js';
import {loadTokenizer} from '../../src/tokenizer/tokenizer.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {wholeNumber} from './options.js';
import {processUse} from './process-use.js';
import {findPackage} from './python.js';
import {runScript} from './run-script.js';
import {pairRatios, type Spread, spread} from './statistics.js';

const METHODS = ['expertweaver', 'cmoe'] as const;
type Method = (typeof METHODS)[number];

/** Calibration: two samples of each of four sources. */
const SOURCES = ['scripture', 'geography', 'javascript', 'c'];
const SAMPLES_PER_SOURCE = 2;
const TOKENS = 2048;

/** The same file drives `downcycle profile` and `downcycle convert`. */
function configOf(model: string, root: string): string {
  const sources = SOURCES.map(
    (name) => `    - {name: ${name}, path: ${JSON.stringify(join(root, `data/${name}.txt`))}}`,
  );
  return `name: bench
model: ${JSON.stringify(model)}
data:
  sequenceLength: ${TOKENS}
  sources:
${sources.join('\n')}
profile: {samplesPerTask: ${SAMPLES_PER_SOURCE}, tokensPerSample: ${TOKENS}}
arms:
  expertweaver: {method: expertweaver, experts: 62, shared: 2, topK: 14}
  cmoe: {method: cmoe, experts: 5, shared: 3, topK: 3}
`;
}

/** What commands took, one after the other. */
interface Run {
  readonly seconds: number;
  /** Of the process that took most. */
  readonly peakBytes: number;
  readonly output: string;
}

interface Place {
  /** Working folder of both sides. */
  readonly work: string;
  readonly cli: string;
  readonly python: string | null;
  readonly model: string;
}

/** Milliseconds between two looks at the memory of a process. */
const LOOK_MS = 50;

async function runCommand(command: string, args: readonly string[], cwd: string): Promise<Run> {
  const begin = performance.now();
  const env = {...process.env, TF_XLA_FLAGS: ''}; // every run compiles anew
  const child = spawn(command, args, {cwd, env, stdio: ['ignore', 'pipe', 'pipe']});
  let [peakBytes, output, errors] = [0, '', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text));
  const look = async (): Promise<void> => {
    const use = child.pid === undefined ? null : await processUse(child.pid);
    peakBytes = Math.max(peakBytes, use?.peakBytes ?? 0);
  };
  const timer = setInterval(() => void look(), LOOK_MS);
  const [code] = (await once(child, 'close')) as [number | null];
  clearInterval(timer);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}:\n${errors.slice(-2000)}`);
  return {seconds: (performance.now() - begin) / 1000, peakBytes, output};
}

async function ours({work, cli}: Place, method: Method, round: number): Promise<Run> {
  const [profile, out] = [`${method}-${round}.safetensors`, `ours-${method}-${round}`];
  const profiled = await runCommand(process.execPath, [cli, 'profile', 'bench.yaml', '--out', profile], work);
  const args = ['convert', 'bench.yaml', '--arm', method, '--profile', profile, '--out', out];
  const converted = await runCommand(process.execPath, [cli, ...args], work);
  return {
    seconds: profiled.seconds + converted.seconds,
    peakBytes: Math.max(profiled.peakBytes, converted.peakBytes),
    output: out,
  };
}

async function theirs({work, python, model}: Place, method: Method, round: number): Promise<Run | null> {
  if (!python) return null;
  const script = join(import.meta.dirname, 'torch_convert.py');
  const samples = String(SOURCES.length * SAMPLES_PER_SOURCE);
  return runCommand(python, [script, model, 'tokens.bin', samples, method, `theirs-${method}-${round}`], work);
}

/** Share of the shared neurons that both sides chose, over all layers: they see the same text, so most are the same. */
async function agreement(folder: string, output: string): Promise<number> {
  const {shared} = z.object({shared: z.array(z.array(z.int()))}).parse(JSON.parse(output));
  const maps = await readNeuronMaps(folder);
  const same = shared.map((ids, layer) => ids.filter((id) => maps[layer]?.[id] === SHARED).length);
  const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
  return sum(same) / sum(shared.map(({length}) => length));
}

/** Packs the text and writes the tokens of the calibration, so that neither side is timed on that. */
async function prepare({work}: Place, yaml: string): Promise<void> {
  await writeFile(join(work, 'bench.yaml'), yaml);
  const {config} = parseConfig(yaml, 'bench.yaml');
  const sources = await ensureShards(
    config.data,
    await loadTokenizer(config.model),
    join(work, layoutOf(config).shards),
  );
  try {
    const {tokens} = await readCalibration(sources, config.profile);
    await writeFile(join(work, 'tokens.bin'), new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength));
  } finally {
    await closeShards(sources);
  }
}

const COLUMNS: readonly TableColumn[] = [
  {title: 'method', align: 'left'},
  {title: 'side', align: 'left'},
  {title: 'seconds', align: 'right'},
  {title: 'min to max', align: 'right'},
  {title: 'ours over it', align: 'right'},
  {title: 'peak\nMB', align: 'right'},
];

interface Rounds {
  readonly ours: Run[];
  readonly theirs: Run[];
}

function rows(method: Method, {ours: mine, theirs: others}: Rounds): string[][] {
  const row = (side: string, runs: readonly Run[], ratio: Spread | null): string[] => {
    const {median, min, max} = spread(runs.map(({seconds}) => seconds));
    const peak = Math.max(...runs.map(({peakBytes}) => peakBytes));
    const ratioText = ratio ? `${ratio.median.toFixed(2)} (${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)})` : '';
    return [
      method,
      side,
      median.toFixed(1),
      `${min.toFixed(1)} to ${max.toFixed(1)}`,
      ratioText,
      (peak / 1e6).toFixed(0),
    ];
  };
  const seconds = (runs: readonly Run[]): number[] => runs.map((run) => run.seconds);
  const first = row('downcycle', mine, null);
  return others.length === 0
    ? [first]
    : [first, row('torch + scipy', others, pairRatios(seconds(mine), seconds(others)))];
}

async function measure(place: Place, method: Method, rounds: number): Promise<Rounds> {
  const result: Rounds = {ours: [], theirs: []};
  for (let round = 1; round <= rounds; round++) {
    const isOurTurn = round % 2 === 1; // each side goes first every other round
    const before = isOurTurn ? null : await theirs(place, method, round);
    const mine = await ours(place, method, round);
    const other = isOurTurn ? await theirs(place, method, round) : before;
    result.ours.push(mine);
    if (other) result.theirs.push(other);
    const same = other
      ? `, ${(100 * (await agreement(join(place.work, mine.output), other.output))).toFixed(1)}% of the shared neurons are the same`
      : '';
    console.log(
      `${method} round ${round}/${rounds}: ours ${mine.seconds.toFixed(1)} s, theirs ${other?.seconds.toFixed(1) ?? '-'} s${same}`,
    );
    for (const name of await readdir(place.work)) {
      if (/^(ours|theirs)-/.test(name)) await rm(join(place.work, name), {recursive: true});
    }
  }
  return result;
}

async function main(args: readonly string[]): Promise<void> {
  const {model, rounds} = new Command('bench:conversion')
    .description(
      'Times `downcycle profile` and `downcycle convert` to the end of the process against the same steps in PyTorch and SciPy, in turns: ExpertWeaver to 64 chunks and CMoE S3A3E8 on 8 x 2048 tokens. DOWNCYCLE_BENCH_PYTHON names a Python that has torch, transformers and scipy.',
    )
    .requiredOption('--model <folder>', 'dense model, such as SmolLM2-135M')
    .option('--rounds <count>', 'turns of each side', wholeNumber, 3)
    .parse([...args], {from: 'user'})
    .opts();
  const machine = await describeMachine();
  const torch = await findPackage('torch', process.env);
  if (torch.kind === 'missing') console.log(torch.reason);
  const root = resolve(import.meta.dirname, '../..');
  execFileSync(process.execPath, [join(root, 'scripts/setup.mjs')], {cwd: root, stdio: 'inherit'}); // dist is of these sources
  const work = await mkdtemp(join(tmpdir(), 'downcycle-bench-'));
  const python = torch.kind === 'found' ? torch.python : null;
  const place: Place = {work, cli: join(root, 'dist/cli/main.js'), python, model: resolve(model)};
  try {
    await prepare(place, configOf(place.model, root));
    const lines: string[][] = [];
    for (const method of METHODS) lines.push(...rows(method, await measure(place, method, rounds)));
    console.log(`\n${machineLine(machine, torch.kind === 'found' ? [`torch ${torch.version}`] : [])}\n`);
    console.log(textTable(COLUMNS, lines));
    const doubt = busyWarning(machine);
    if (doubt) console.log(`\n${doubt}`);
  } finally {
    await rm(work, {recursive: true, force: true});
  }
}

await runScript(() => main(process.argv.slice(2)));
