import {type ChildProcess, spawn} from 'node:child_process';
import {once} from 'node:events';
import {join} from 'node:path';
import {createInterface} from 'node:readline';
import {type ProcessUse, processUse} from './process-use.js';
import {ANSWERS, type Answer, type Request} from './protocol.js';

/** How a side is started. */
export interface SideCommand {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly isOurs: boolean;
  /** Whether PyTorch goes through `torch.compile`; our side always compiles. */
  readonly compiles: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

/** A long-lived process that trains when asked to. */
export interface Side {
  readonly name: string;
  /** @throws Error with the end of what the process printed, if it died or answered nonsense. */
  ask<K extends Request['kind']>(request: Extract<Request, {kind: K}>): Promise<Answer<K>>;
  use(): Promise<ProcessUse | null>;
  close(): Promise<void>;
  /** Ends it in the middle of whatever it does. */
  kill(): void;
}

/** Lines of a dead process that an error shows. */
const TAIL_LINES = 12;

/** The process of our own side; it compiles anew every time, as PyTorch does, so that peaks of memory count it. */
export function ourCommand(env: Readonly<Record<string, string>> = {}): SideCommand {
  return {
    name: 'downcycle',
    command: process.execPath,
    args: ['--import', 'tsx', join(import.meta.dirname, 'ours.ts')],
    isOurs: true,
    compiles: true,
    env: {TF_XLA_FLAGS: '', ...env},
  };
}

/** How PyTorch takes the step: a model written by hand, eager or compiled, or Qwen2-MoE of transformers, eager. */
export type TorchWay = 'eager' | 'compile' | 'transformers';

/** The process of PyTorch's side. */
export function torchCommand(python: string, way: TorchWay): SideCommand {
  const script = join(import.meta.dirname, way === 'transformers' ? 'transformers_step.py' : 'torch_step.py');
  return {name: `torch ${way}`, command: python, args: [script], isOurs: false, compiles: way === 'compile'};
}

/** Starts a side; it lives until closed, and ends by itself when this process does. */
export function openSide({name, command, args, env}: SideCommand): Side {
  const child = spawn(command, args, {env: {...process.env, ...env}, stdio: ['pipe', 'pipe', 'pipe']});
  const printed = collectTail(child);
  const lines = createInterface({input: child.stdout})[Symbol.asyncIterator]();
  child.stdin.on('error', () => undefined); // a dead child is reported by the answer that does not come
  return {
    name,
    ask: async (request) => {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const line: IteratorResult<string, undefined> = await lines.next();
      if (line.done) throw new Error(`${name} gave no answer to "${request.kind}". ${await printed()}`);
      return parseAnswer(request.kind, line.value);
    },
    use: async () => (child.pid === undefined ? null : processUse(child.pid)),
    close: async () => {
      child.stdin.end();
      if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) await once(child, 'exit');
    },
    kill: () => void child.kill('SIGKILL'),
  };
}

function parseAnswer<K extends Request['kind']>(kind: K, line: string): Answer<K> {
  return ANSWERS[kind].parse(JSON.parse(line)) as Answer<K>;
}

/** How a child ended, with the last lines it printed on stderr; the result waits for that. */
function collectTail(child: ChildProcess): () => Promise<string> {
  const tail: string[] = [];
  const ended = once(child, 'close').catch((error: unknown) => tail.push(String(error)));
  if (child.stderr) {
    createInterface({input: child.stderr}).on('line', (line) => {
      tail.push(line);
      if (tail.length > TAIL_LINES) tail.shift();
    });
  }
  return async () => {
    await ended;
    const how = child.signalCode === null ? `with exit code ${child.exitCode}` : `by ${child.signalCode}`;
    return [`It ended ${how}.`, ...tail].join('\n');
  };
}
