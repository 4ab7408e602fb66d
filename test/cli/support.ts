import {spawn} from 'node:child_process';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join, resolve} from 'node:path';
import {onTestFinished} from 'vitest';
import {runCli} from '../../src/cli/run.js';
import {DOWNCYCLE} from '../support/program.js';

/** What a command left behind. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command in this process. */
export function cli(...args: readonly string[]): Promise<Ended> {
  return cliOn({}, ...args);
}

/** The same with an environment, or on a terminal. */
export async function cliOn(
  {env = {}, isTTY = false}: {env?: NodeJS.ProcessEnv; isTTY?: boolean},
  ...args: readonly string[]
): Promise<Ended> {
  const stdout: string[] = [];
  const stderr: string[] = [];
  const stream = (texts: string[]) => ({isTTY, columns: 100, write: (text: string) => texts.push(text)});
  const code = await runCli(args, {stdout: stream(stdout), stderr: stream(stderr), env});
  return {code, stdout: stdout.join(''), stderr: stderr.join('')};
}

/** Runs a command as a person does, in a process of its own. */
export function spawnCli(
  args: readonly string[],
  options: {cwd?: string; env?: NodeJS.ProcessEnv} = {},
): Promise<Ended> {
  return startCli(args, options).ended;
}

/** The same for a command that is to be stopped. */
export function startCli(
  args: readonly string[],
  options: {cwd?: string; env?: NodeJS.ProcessEnv} = {},
): {readonly ended: Promise<Ended>; kill(signal: NodeJS.Signals): void} {
  const [node = '', ...program] = DOWNCYCLE;
  const child = spawn(node, [...program, ...args], {
    ...options,
    env: {...process.env, NO_COLOR: undefined, ...options.env},
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<Ended>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code) => done({code, stdout, stderr}));
  });
  return {ended, kill: (signal) => void child.kill(signal)};
}

/** A folder that is gone after the test. */
export async function tempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'downcycle-cli-'));
  onTestFinished(() => rm(folder, {recursive: true, force: true}));
  return folder;
}

/** Writes a config for the model at `folder/model`, with `more` at its end, and returns its path. */
export async function writeConfig(folder: string, text: string, more = ''): Promise<string> {
  const path = join(folder, 'config.yaml');
  const config = `name: tiny
seed: 7
engine: {device: wasm}
model: ${join(folder, 'model')}
data:
  sequenceLength: 32
  sources: [{name: scripture, path: ${resolve(text)}}]
  validation: {share: 0.2}
profile: {samplesPerTask: 4, tokensPerSample: 16}
train:
  batch: {sequences: 4}
  steps: 4
  schedule: {kind: constant}
  validation: {every: 2, maxRows: 4}
${more}`;
  await writeFile(path, config);
  return path;
}
