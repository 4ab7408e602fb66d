import {execFile} from 'node:child_process';
import {promisify} from 'node:util';

/** A Python that has a package, or one line that says why there is none. */
export type PackageLookup =
  | {readonly kind: 'found'; readonly python: string; readonly version: string}
  | {readonly kind: 'missing'; readonly reason: string};

/** Environment variable with the path of the Python to use. */
const VARIABLE = 'DOWNCYCLE_BENCH_PYTHON';

/** Looks for a package in the Python that the environment names, else in `python3`. */
export async function findPackage(name: string, env: NodeJS.ProcessEnv): Promise<PackageLookup> {
  const python = env[VARIABLE] ?? 'python3';
  try {
    const {stdout} = await promisify(execFile)(python, ['-c', `import ${name}; print(${name}.__version__)`]);
    return {kind: 'found', python, version: stdout.trim()};
  } catch {
    return {
      kind: 'missing',
      reason: `Nothing is compared: ${python} cannot import ${name}. Name one that can in ${VARIABLE}.`,
    };
  }
}
