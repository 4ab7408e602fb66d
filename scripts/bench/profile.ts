// Shows what XLA made of a training step: npx tsx scripts/bench/profile.ts --case a --kind moe --finetune full --out <folder>
import {readdir, readFile, stat} from 'node:fs/promises';
import {availableParallelism} from 'node:os';
import {join, resolve} from 'node:path';
import {Command, Option} from '@commander-js/extra-typings';
import {textTable} from '../../src/report/table.js';
import {refuseExisting} from '../../src/util/atomic.js';
import {CASES, type Case, type Finetune, type Kind, setupOf} from './cases.js';
import {entryInstructions, type Instruction, signatureOf} from './hlo.js';
import {flopsOf} from './result.js';
import {runScript} from './run-script.js';
import {openSide, ourCommand} from './side.js';

/** Lines of the second table. */
const NUM_SHAPES = 25;

async function main(): Promise<void> {
  const {one, kind, finetune, out} = options();
  await refuseExisting(out);
  await runOnce(one, {kind, finetune}, out);
  const modules = await stepModules(out);
  const last = modules.at(-1);
  if (last === undefined) throw new Error(`XLA wrote no step into ${out}`);
  const instructions = entryInstructions(await readFile(join(out, last), 'utf8'));
  const dots = instructions.reduce((sum, {dot}) => sum + (dot?.flops ?? 0), 0);
  console.log(`${last}: ${instructions.length} instructions one after the other`);
  console.log(`matrix products ${gigaflop(dots)} GFLOP, the model needs ${gigaflop(flopsOf(one, kind, finetune))}\n`);
  console.log(groupTable(instructions, ({opcode}) => opcode, 'instruction'));
  console.log(`\n${groupTable(instructions, signatureOf, `shape (the ${NUM_SHAPES} with most work)`)}`);
}

function options(): {one: Case; kind: Kind; finetune: Finetune; out: string} {
  const {
    case: name,
    kind,
    finetune,
    out,
  } = new Command('profile')
    .description('Shows what XLA made of a training step.')
    .addOption(new Option('--case <name>', 'model and batch').choices(['a', 'b'] as const).default('a' as const))
    .addOption(
      new Option('--kind <kind>', 'feed-forward part').choices(['dense', 'moe'] as const).default('moe' as const),
    )
    .addOption(
      new Option('--finetune <what>', 'what trains')
        .choices(['full', 'lora', 'routers'] as const)
        .default('full' as const),
    )
    .requiredOption('--out <folder>', 'for what XLA writes; must not exist')
    .exitOverride()
    .parse()
    .opts();
  return {one: CASES[name], kind, finetune, out: resolve(out)};
}

/** One step is enough: XLA writes a module when it compiles it. */
async function runOnce(
  one: Case,
  {kind, finetune}: {readonly kind: Kind; readonly finetune: Finetune},
  out: string,
): Promise<void> {
  const ours = [
    process.env.XLA_FLAGS,
    `--xla_dump_to=${out}`,
    '--xla_dump_hlo_as_text',
    '--xla_dump_hlo_module_re=train_',
  ];
  const side = openSide(ourCommand({XLA_FLAGS: ours.join(' ')}));
  try {
    const place = {threads: availableParallelism(), device: 'cpu', precision: 'float32'} as const;
    await side.ask({kind: 'start', setup: setupOf(one, kind, finetune, place)});
    await side.ask({kind: 'steps', count: 1});
  } finally {
    await side.close();
  }
}

async function stepModules(folder: string): Promise<string[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('after_optimizations.txt'));
  const times = await Promise.all(names.map(async (name) => ({name, time: (await stat(join(folder, name))).mtimeMs})));
  return times.sort((a, b) => a.time - b.time).map(({name}) => name);
}

/** Instructions of one group together, those with most products first, then those that write most. */
function groupTable(
  instructions: readonly Instruction[],
  groupOf: (one: Instruction) => string,
  title: string,
): string {
  const groups = new Map<string, {count: number; bytes: number; flops: number}>();
  for (const one of instructions) {
    const {count, bytes, flops} = groups.get(groupOf(one)) ?? {count: 0, bytes: 0, flops: 0};
    groups.set(groupOf(one), {count: count + 1, bytes: bytes + one.bytes, flops: flops + (one.dot?.flops ?? 0)});
  }
  const sorted = [...groups].sort(([, a], [, b]) => b.flops - a.flops || b.bytes - a.bytes).slice(0, NUM_SHAPES);
  return textTable(
    [
      {title, align: 'left'},
      {title: 'count', align: 'right'},
      {title: 'MB written', align: 'right'},
      {title: 'GFLOP', align: 'right'},
    ],
    sorted.map(([name, {count, bytes, flops}]) => [
      name,
      String(count),
      (bytes / 1e6).toFixed(1),
      flops ? gigaflop(flops) : '',
    ]),
  );
}

function gigaflop(flops: number): string {
  return (flops / 1e9).toFixed(2);
}

await runScript(main);
