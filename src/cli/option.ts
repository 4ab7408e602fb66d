import {Option} from '@commander-js/extra-typings';

/** `--set path=value`, which may stand more than once. */
export function setOption() {
  return new Option(
    '--set <path=value>',
    'override one key of the config, e.g. train.steps=200; may be repeated',
  ).argParser((value: string, before: readonly string[] | undefined): readonly string[] => [...(before ?? []), value]);
}

/** The examples at the end of a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ downcycle ${line}`).join('\n')}\n`;
}
