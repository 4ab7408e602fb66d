import {InvalidArgumentError, Option} from '@commander-js/extra-typings';
import {parseQuantity} from '../util/quantity.js';

/** `--set path=value`, which may stand more than once. */
export function setOption() {
  return new Option(
    '--set <path=value>',
    'override one key of the config, e.g. train.steps=200; may be repeated',
  ).argParser((value: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), value]);
}

/** A whole positive number, plainly or as `2k`. */
export function count(text: string): number {
  const value = parseQuantity(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new InvalidArgumentError('It must be 1 or more, a whole number such as 512 or 2k.');
}

/** What decides draws: a whole number from 0 on. */
export function seed(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new InvalidArgumentError('It must be a whole number, 0 or more.');
}

/** The examples at the end of a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ downcycle ${line}`).join('\n')}\n`;
}

/** `--allow-change`, of commands that go on with runs. */
export function allowChangeOption() {
  return new Option(
    '--allow-change',
    'as --resume, although config, model or text is another than when the run began; the log says what changed',
  )
    .implies({resume: true})
    .conflicts('overwrite');
}

/** `--dtype`, of commands that write matrices. */
export function dtypeOption(): Option<'--dtype <dtype>', undefined, undefined, undefined, false, keyof typeof DTYPES> {
  return new Option('--dtype <dtype>', 'what matrices are stored in; default: as in the model').choices([
    'float32',
    'bfloat16',
    'float16',
  ] as const);
}

/** The dtypes that {@link dtypeOption} names. */
export const DTYPES = {float32: 'F32', bfloat16: 'BF16', float16: 'F16'} as const;
