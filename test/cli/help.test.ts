import {describe, expect, test} from 'vitest';
import {buildProgram} from '../../src/cli/run.js';
import {packageVersion} from '../../src/util/version.js';
import {cli, spawnCli} from './support.js';

const NAMES = [
  'pull',
  'prepare',
  'profile',
  'convert',
  'conversions',
  'train',
  'recover',
  'merge',
  'export',
  'eval',
  'generate',
  'compare',
  'plot',
  'inspect',
  'doctor',
];
const silent = {write: () => undefined};
const {program} = buildProgram({stdout: silent, stderr: silent, env: {}});

describe('help', () => {
  test('lists the commands in the order in which they are used', () => {
    expect(program.commands.map((command) => command.name())).toEqual(NAMES);
  });

  test.each(NAMES)('of %s describes every argument and option', async (name) => {
    const command = program.commands.find((one) => one.name() === name)!;
    expect(command.summary()).not.toBe('');
    expect(command.description().length).toBeGreaterThan(command.summary().length);
    for (const argument of command.registeredArguments) expect(argument.description, argument.name()).not.toBe('');
    for (const option of command.options) expect(option.description, option.flags).not.toBe('');
    const {stdout} = await cli(name, '--help');
    for (const {long} of command.options) expect(stdout).toContain(long);
  });

  test.each(NAMES)('of %s ends with examples that name options it has', async (name) => {
    const {stdout} = await cli(name, '--help');
    const examples = stdout.split('Examples:\n')[1] ?? '';
    expect(examples).toContain(`$ downcycle ${name}`);
    const command = program.commands.find((one) => one.name() === name)!;
    const flags = command.options.flatMap(({long, short}) => [long, short]);
    expect(
      [...examples.matchAll(/ (--?[a-z][a-z-]*)/g)].map(([, flag]) => flag).filter((flag) => !flags.includes(flag)),
    ).toEqual([]);
  });

  test('of convert lists the words of every key that its flags give', async () => {
    const text = (await cli('convert', '--help')).stdout.replaceAll(/\s+/g, ' ');
    expect(text).toContain('--router <kind> what scores an expert: gate-mean, representative, ridge');
    expect(text).toMatch(
      /--method <name> how the mixture is made: expertweaver, .*granular-upcycle, dive --experts <count>/,
    );
  });

  test('shows the global options of every command', async () => {
    expect((await cli('train', '--help')).stdout).toContain('--no-color');
  });

  test('states the exit codes', async () => {
    expect((await cli('--help')).stdout).toContain('3 config');
  });

  test('is printed by a process of its own, and nothing on standard error', async () => {
    const {code, stdout, stderr} = await spawnCli(['--help']);
    expect({code, stderr}).toEqual({code: 0, stderr: ''});
    expect(stdout).toContain('Usage: downcycle [options] [command]');
  });

  test('without a command is a mistake, and help is shown', async () => {
    const {code, stdout, stderr} = await cli();
    expect({code, stdout}).toEqual({code: 2, stdout: ''});
    expect(stderr).toContain('Usage: downcycle');
  });
});

test('--version prints the version of the package', async () => {
  expect(await cli('-V')).toEqual({code: 0, stdout: `${packageVersion()}\n`, stderr: ''});
});
