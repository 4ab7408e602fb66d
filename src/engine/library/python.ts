import {type ChildProcess, spawn} from 'node:child_process';
import {EnvironmentError, systemCode} from '../../util/errors.js';
import {type Wheel, wheelTags} from './versions.js';

/** How a run of Python ended; `code` is null if a signal or our time limit ended it. */
export interface PythonResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface PythonOptions {
  readonly env: NodeJS.ProcessEnv;
  /** Ends Python after so many milliseconds; no limit if left out. */
  readonly timeout?: number;
}

/** Finds the folder of an importable tensorflow without importing it: a folder of that name here does not count. */
const FIND_TENSORFLOW = `
import importlib.util, os, sys
sys.path = [p for p in sys.path if p]
spec = importlib.util.find_spec('tensorflow')
print(os.path.dirname(spec.origin) if spec and spec.origin else '')
`;

/** The folder of the `tensorflow` package that `python3` would import; null if it has none, or there is no python3. */
export async function findPythonTensorFlow(env: NodeJS.ProcessEnv): Promise<string | null> {
  try {
    const {code, stdout} = await runPython(['-c', FIND_TENSORFLOW], {env, timeout: 10_000});
    return (code === 0 && stdout.trim()) || null;
  } catch (error) {
    if (error instanceof EnvironmentError) return null;
    throw error;
  }
}

/**
 * Runs `python3` to its end.
 *
 * @throws EnvironmentError if there is no python3 to start.
 */
export function runPython(args: readonly string[], {env, timeout}: PythonOptions): Promise<PythonResult> {
  return new Promise((resolve, reject) => {
    const child = spawn('python3', args, {env, stdio: ['ignore', 'pipe', 'pipe']});
    const forget = endWithUs(child, timeout);
    const output = {stdout: '', stderr: ''};
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
    child.once('error', (error) => {
      forget();
      reject(noPython(error));
    });
    child.once('close', (code) => {
      forget();
      resolve({code, ...output});
    });
  });
}

/** The arguments of `python3` that download one wheel for `arch` into `folder`, whatever that Python's own version is. */
export function pipArguments(wheel: Wheel, arch: string, folder: string): string[] {
  const {pythonVersion, abi, platforms} = wheelTags(arch);
  const fixed = '-m pip download --no-deps --only-binary=:all: --no-cache-dir --progress-bar off --retries 2';
  const tags = ['--python-version', pythonVersion, '--implementation', 'cp', '--abi', abi];
  const platform = platforms.flatMap((tag) => ['--platform', tag]);
  return [...fixed.split(' '), ...tags, ...platform, '--dest', folder, `${wheel.name}==${wheel.version}`];
}

/** Why pip failed, in one line, from what it wrote. `isOffline` if it reached no package index. */
export function explainPipFailure(wheel: Wheel, {code, stdout, stderr}: PythonResult): EnvironmentError {
  const asked = `Downloading ${wheel.name} ${wheel.version} with pip failed`;
  const text = `${stdout}\n${stderr}`;
  const fail = (found: string, hint: string): EnvironmentError => new EnvironmentError(`${asked}: ${found}`, {hint});
  if (/No module named pip\b/.test(text))
    return fail('this Python has no pip.', 'Install it, e.g. the package python3-pip.');
  if (/No space left on device|Disk quota exceeded/.test(text))
    return fail('the disk is full.', 'Free some space and try again.');
  if (/CERTIFICATE_VERIFY_FAILED/.test(text)) {
    return fail(
      'the certificate of the package index is not trusted.',
      "Set pip's `cert` option to your network's certificate.",
    );
  }
  if (/connection broken|ConnectionError|Max retries exceeded|Read timed out|Temporary failure in name/i.test(text)) {
    return fail(
      'no connection to the package index.',
      'Connect to the network, or set the proxy that pip needs, and try again.',
    );
  }
  if (/No matching distribution found/.test(text)) {
    return fail(
      'the package index does not have it.',
      'Point pip at a full package index, or set DOWNCYCLE_TENSORFLOW.',
    );
  }
  const last =
    text
      .split('\n')
      .filter((line) => line.trim())
      .at(-1) ?? `it ended with ${code ?? 'a signal'} and said nothing`;
  return fail(last.trim(), 'Try again, or run pip by hand to see more.');
}

/** Ends a child with this process, or after its time: a killed set-up leaves no pip behind. Returns how to let go of it. */
function endWithUs(child: ChildProcess, timeout: number | undefined): () => void {
  const kill = (): boolean => child.kill();
  process.once('exit', kill);
  // Not spawn's own timeout: it holds the process up when there was nothing to start.
  const clock = timeout === undefined ? undefined : setTimeout(kill, timeout);
  return () => {
    clearTimeout(clock);
    process.off('exit', kill);
  };
}

function noPython(error: Error): Error {
  const code = systemCode(error);
  if (code !== 'ENOENT' && code !== 'EACCES') return error;
  return new EnvironmentError('There is no python3 on the PATH; TensorFlow is fetched with its pip.', {
    hint: 'Install Python 3 with pip, or set DOWNCYCLE_TENSORFLOW to a folder that holds the libraries.',
    cause: error,
  });
}
