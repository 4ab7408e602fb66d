import {execFile} from 'node:child_process';
import {promisify} from 'node:util';

/** A Python that has PyTorch, or one line that says why there is none. */
export type TorchLookup =
  | {readonly kind: 'found'; readonly python: string; readonly version: string}
  | {readonly kind: 'missing'; readonly reason: string};

/** Environment variable with the path of the Python to use. */
const VARIABLE = 'DOWNCYCLE_BENCH_PYTHON';

/** Looks for PyTorch in the Python that the environment names, else in `python3`. */
export async function findTorch(env: NodeJS.ProcessEnv): Promise<TorchLookup> {
  const python = env[VARIABLE] ?? 'python3';
  try {
    const {stdout} = await promisify(execFile)(python, ['-c', 'import torch; print(torch.__version__)']);
    return {kind: 'found', python, version: stdout.trim()};
  } catch {
    return {
      kind: 'missing',
      reason: `PyTorch is not compared: ${python} cannot import torch. Name one that can in ${VARIABLE}.`,
    };
  }
}
