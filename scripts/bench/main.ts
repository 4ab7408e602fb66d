// Times the training step against PyTorch, in turns: npm run bench -- --help
import {availableParallelism} from 'node:os';
import {refuseExisting, writeFileAtomic} from '../../src/util/atomic.js';
import {type Finetune, type Kind, trains} from './cases.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {measureCase} from './measure.js';
import {type BenchOptions, parseOptions} from './options.js';
import {findTorch} from './python.js';
import type {CaseResult} from './result.js';
import {runScript} from './run-script.js';
import {checkSameTraining} from './same-training.js';
import {ourCommand, type SideCommand, torchCommand} from './side.js';
import {remarks, resultTable} from './table.js';

async function main(options: BenchOptions): Promise<void> {
  if (options.json) await refuseExisting(options.json);
  const machine = await describeMachine();
  const threads = availableParallelism();
  const commands = await sideCommands(options);
  const agreements = await compareTraining(commands, options, threads);
  const results = await measureAll(commands, options, threads);
  const versions = (results[0]?.sides ?? []).map(({name, version}) => `${name} on ${version}`);
  console.log(`\n${machineLine(machine, versions)}; ${threads} threads, float32, ${options.rounds} rounds in turns\n`);
  console.log(resultTable(results));
  const doubt = busyWarning(machine) ?? [];
  console.log(['', ...agreements, ...results.flatMap(remarks)].concat(doubt).join('\n'));
  if (options.json) await writeFileAtomic(options.json, `${JSON.stringify({machine, threads, results}, null, 1)}\n`);
}

async function sideCommands({compile}: BenchOptions): Promise<SideCommand[]> {
  const torch = await findTorch(process.env);
  if (torch.kind === 'missing') {
    console.log(torch.reason);
    return [ourCommand()];
  }
  const compiled = compile ? [torchCommand(torch.python, 'compile')] : [];
  return [ourCommand(), torchCommand(torch.python, 'eager'), ...compiled];
}

/** What is trained, and how much of it; a dense model has no routers to train. */
function trainings({kinds, finetunes}: BenchOptions): {readonly kind: Kind; readonly finetune: Finetune}[] {
  return kinds.flatMap((kind) =>
    finetunes.filter((finetune) => trains(kind, finetune)).map((finetune) => ({kind, finetune})),
  );
}

async function compareTraining(
  [ours, torch]: readonly SideCommand[],
  options: BenchOptions,
  threads: number,
): Promise<string[]> {
  if (!ours || !torch) return [];
  const lines: string[] = [];
  for (const what of trainings(options)) {
    const difference = await checkSameTraining(ours, torch, what, threads);
    lines.push(
      `Same training: from the same weights, losses of six steps of a tiny ${what.kind} model (${what.finetune}) differ by ${difference.toExponential(0)}.`,
    );
  }
  return lines;
}

async function measureAll(
  commands: readonly SideCommand[],
  options: BenchOptions,
  threads: number,
): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const one of options.cases) {
    for (const what of trainings(options)) {
      const turns = {rounds: options.rounds, steps: options.steps ?? one.steps, capacity: options.capacity, threads};
      const report = (line: string): void => console.log(`${one.name} ${what.kind} ${what.finetune}, ${line}`);
      results.push(await measureCase(one, what, commands, turns, report));
    }
  }
  return results;
}

await runScript(() => main(parseOptions(process.argv.slice(2))));
