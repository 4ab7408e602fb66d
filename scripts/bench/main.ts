// Times the training step against PyTorch, in turns: npm run bench -- --help
import {availableParallelism} from 'node:os';
import {refuseExisting, writeFileAtomic} from '../../src/util/atomic.js';
import {type Finetune, type Kind, type Place, trains} from './cases.js';
import {busyWarning, describeMachine, machineLine} from './machine.js';
import {measureCase} from './measure.js';
import {type BenchOptions, parseOptions} from './options.js';
import {findPackage} from './python.js';
import type {CaseResult} from './result.js';
import {runScript} from './run-script.js';
import {checkSameTraining} from './same-training.js';
import {ourCommand, type SideCommand, type TorchWay, torchCommand} from './side.js';
import {remarks, resultTable} from './table.js';

async function main(options: BenchOptions): Promise<void> {
  if (options.json) await refuseExisting(options.json);
  const machine = await describeMachine();
  const {device, precision} = options;
  const place = {device, precision, threads: availableParallelism()};
  const sides = await findSides(options);
  const agreements = await compareTraining(sides, options, place);
  const results = await measureAll(sides, options, place);
  const versions = [
    ...new Set(results.flatMap(({sides: all}) => all.map(({name, version}) => `${name} on ${version}`))),
  ];
  console.log(
    `\n${machineLine(machine, versions)}; ${place.threads} threads, ${device}, ${precision}, ${options.rounds} rounds in turns\n`,
  );
  console.log(resultTable(results));
  const doubt = busyWarning(machine) ?? [];
  console.log(['', ...agreements, ...results.flatMap(remarks)].concat(doubt).join('\n'));
  if (options.json) await writeFileAtomic(options.json, `${JSON.stringify({machine, ...place, results}, null, 1)}\n`);
}

/** A side with what it can train. */
interface Entrant {
  readonly command: SideCommand;
  readonly fits: (what: Training) => boolean;
}

/** What is trained, and how much of it. */
interface Training {
  readonly kind: Kind;
  readonly finetune: Finetune;
}

async function findSides({compile, transformers}: BenchOptions): Promise<Entrant[]> {
  const torch = await findPackage('torch', process.env);
  const ours: Entrant = {command: ourCommand(), fits: () => true};
  if (torch.kind === 'missing') {
    console.log(torch.reason);
    return [ours];
  }
  const of = (way: TorchWay): SideCommand => torchCommand(torch.python, way);
  return [
    ours,
    {command: of('eager'), fits: () => true},
    ...(compile ? [{command: of('compile'), fits: () => true}] : []),
    ...(transformers ? [{command: of('transformers'), fits: fitsTransformers}] : []),
  ];
}

function fitsTransformers({kind, finetune}: Training): boolean {
  return kind === 'moe' && finetune !== 'lora';
}

/** A dense model has no routers to train. */
function trainings({kinds, finetunes}: BenchOptions): Training[] {
  return kinds.flatMap((kind) =>
    finetunes.filter((finetune) => trains(kind, finetune)).map((finetune) => ({kind, finetune})),
  );
}

async function compareTraining(
  [ours, ...others]: readonly Entrant[],
  options: BenchOptions,
  place: Place,
): Promise<string[]> {
  if (!ours) return [];
  const lines: string[] = [];
  for (const what of trainings(options)) {
    for (const {command, fits} of others) {
      if (command.compiles || !fits(what)) continue;
      const difference = await checkSameTraining(ours.command, command, what, place);
      lines.push(
        `Same training: from the same weights, losses of six steps of a tiny ${what.kind} model (${what.finetune}) differ by ${difference.toExponential(0)} from ${command.name}.`,
      );
    }
  }
  return lines;
}

async function measureAll(sides: readonly Entrant[], options: BenchOptions, place: Place): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for (const one of options.cases) {
    for (const what of trainings(options)) {
      const turns = {rounds: options.rounds, steps: options.steps ?? one.steps, capacity: options.capacity, place};
      const report = (line: string): void => console.log(`${one.name} ${what.kind} ${what.finetune}, ${line}`);
      const commands = sides.filter(({fits}) => fits(what)).map(({command}) => command);
      results.push(await measureCase(one, what, commands, turns, report));
    }
  }
  return results;
}

await runScript(() => main(parseOptions(process.argv.slice(2))));
