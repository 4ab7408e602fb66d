import {spawn} from 'node:child_process';
import {expect} from 'vitest';

/** Runs a TypeScript file of the tests in a process of its own and returns the JSON it printed. */
export async function runChild(
  script: URL,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  timeout = 55_000,
): Promise<unknown> {
  const child = spawn(process.execPath, ['--import', 'tsx', script.pathname, ...args], {
    env: {...process.env, XLA_FLAGS: undefined, ...env}, // compiled as for a user
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout,
  });
  const output = {stdout: '', stderr: ''};
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect(code, output.stderr).toBe(0);
  return JSON.parse(output.stdout);
}
