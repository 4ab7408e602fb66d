// What a run can have of the machine.
import {execFile} from 'node:child_process';
import {freemem} from 'node:os';
import {promisify} from 'node:util';
import {EnvironmentError} from '../util/errors.js';

/** What is free, bytes, and what this process gives back when it ends. */
export function freeMemory(): number {
  return (process.availableMemory?.() ?? freemem()) + process.memoryUsage.rss();
}

/**
 * What is free on the first GPU, bytes.
 *
 * @throws EnvironmentError if nvidia-smi does not say.
 */
export async function freeGpuMemory(): Promise<number> {
  const args = ['--query-gpu=memory.free', '--format=csv,noheader,nounits'];
  const {stdout} = await promisify(execFile)('nvidia-smi', args).catch((cause: unknown) => {
    throw new EnvironmentError('nvidia-smi does not say how much GPU memory is free.', {
      hint: 'Run `downcycle doctor` to see what is missing.',
      cause,
    });
  });
  return Number(stdout.split('\n', 1)[0]) * 2 ** 20;
}
