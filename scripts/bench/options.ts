import {Command, InvalidArgumentError, Option} from '@commander-js/extra-typings';
import {CASES, type Case, type Finetune, type Kind} from './cases.js';
import type {Setup} from './protocol.js';

/** What is measured, and how long. */
export interface BenchOptions {
  readonly cases: readonly Case[];
  readonly kinds: readonly Kind[];
  readonly finetunes: readonly Finetune[];
  readonly rounds: number;
  /** Steps a turn; null leaves it to the case. */
  readonly steps: number | null;
  /** File for every number, besides the table. */
  readonly json: string | null;
  /** Even shares an expert has room for on our side; null never drops a row. */
  readonly capacity: number | null;
  /** Whether PyTorch is also timed through torch.compile. */
  readonly compile: boolean;
  /** Whether Qwen2-MoE of transformers is also timed, where every weight or the routers train. */
  readonly transformers: boolean;
  readonly device: Setup['device'];
  readonly precision: Setup['precision'];
}

const ROUNDS = 9;

/** @throws CommanderError after it has printed what is wrong, or the help that was asked for. */
export function parseOptions(args: readonly string[]): BenchOptions {
  const command = new Command('bench')
    .description(
      'Times the training step against PyTorch, in turns. PyTorch is optional: DOWNCYCLE_BENCH_PYTHON names a Python that has it.',
    )
    .addOption(
      new Option('--case <name>', `a: ${CASES.a.title}. b: ${CASES.b.title}. c: ${CASES.c.title}. all: a and b`)
        .choices(['a', 'b', 'c', 'all'] as const)
        .default('all' as const),
    )
    .addOption(
      new Option('--kind <kind>', 'feed-forward part')
        .choices(['dense', 'moe', 'all'] as const)
        .default('all' as const),
    )
    .addOption(
      new Option('--finetune <what>', 'what trains: every weight, LoRA of rank 8 on attention and experts, or routers')
        .choices(['full', 'lora', 'routers', 'all'] as const)
        .default('full' as const),
    )
    .option('--rounds <count>', 'turns of each side', wholeNumber, ROUNDS)
    .option('--steps <count>', `steps a turn (default: ${CASES.a.steps} for a, ${CASES.b.steps} for b)`, wholeNumber)
    .option(
      '--capacity <factor>',
      'let our side drop expert rows beyond this many even shares: shows what even routing would give',
      factor,
    )
    .option('--json <file>', 'also write every number; the file must not exist')
    .option('--compile', 'also time torch.compile, which may take minutes to start', false)
    .option('--transformers', 'also time Qwen2-MoE of transformers, which has no low-rank terms here', false)
    .addOption(
      new Option('--device <device>', 'where both sides compute')
        .choices(['cpu', 'cuda'] as const)
        .default('cpu' as const),
    )
    .addOption(
      new Option('--precision <precision>', 'of the inputs of products; PyTorch by autocast')
        .choices(['float32', 'bfloat16'] as const)
        .default('float32' as const),
    )
    .allowExcessArguments(false)
    .exitOverride();
  const {
    case: name,
    kind,
    finetune,
    rounds,
    steps,
    json,
    capacity,
    compile,
    transformers,
    device,
    precision,
  } = command.parse([...args], {from: 'user'}).opts();
  return {
    cases: name === 'all' ? [CASES.a, CASES.b] : [CASES[name]],
    kinds: kind === 'all' ? ['dense', 'moe'] : [kind],
    finetunes: finetune === 'all' ? ['full', 'lora', 'routers'] : [finetune],
    rounds,
    steps: steps ?? null,
    json: json ?? null,
    capacity: capacity ?? null,
    compile,
    transformers,
    device,
    precision,
  };
}

function factor(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= 1) return value;
  throw new InvalidArgumentError('It must be a number of at least 1.');
}

/** A count typed as an option. @throws InvalidArgumentError if it is not a whole number of at least 1. */
export function wholeNumber(text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be a whole number of at least 1.');
}
