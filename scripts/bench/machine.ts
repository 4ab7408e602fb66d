import {execFile} from 'node:child_process';
import {availableParallelism, cpus, loadavg, totalmem} from 'node:os';
import {promisify} from 'node:util';

/** What a number in the table depends on besides the code. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGigabytes: number;
  /** Processes that were running or waiting in the minute before. */
  readonly load: number;
  readonly node: string;
  /** Short hash, with a plus if tracked files differ from it; null outside a repository. */
  readonly commit: string | null;
  /** Settings of XLA from outside. */
  readonly xlaFlags: string | null;
}

/** Processes on average that may run beside a measurement. */
const BUSY_LOAD = 0.5;

/** Describes this machine and checkout. */
export async function describeMachine(): Promise<Machine> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown processor',
    cores: availableParallelism(),
    memoryGigabytes: totalmem() / 2 ** 30,
    load: loadavg()[0] ?? 0,
    node: process.version,
    commit: await commit(),
    xlaFlags: process.env.XLA_FLAGS ?? null,
  };
}

/** One line if other work was running: it slows threads that wait for each other, PyTorch's most, so ratios mean nothing. */
export function busyWarning({load}: Machine): string | null {
  if (load < BUSY_LOAD) return null;
  return `Load ${load.toFixed(1)} before the run: other work shares the cores, and these times compare nothing. Run it again on a quiet machine.`;
}

/** The machine in one line, with the versions of both sides. */
export function machineLine(machine: Machine, versions: readonly string[]): string {
  const {cpu, cores, memoryGigabytes, load, node, commit, xlaFlags} = machine;
  return [
    `${cpu}, ${cores} cores, ${memoryGigabytes.toFixed(0)} GB`,
    `load ${load.toFixed(1)} before`,
    `Node ${node}`,
    ...versions,
    ...(commit ? [`commit ${commit}`] : []),
    ...(xlaFlags ? [`XLA_FLAGS ${xlaFlags}`] : []),
  ].join('; ');
}

async function commit(): Promise<string | null> {
  try {
    const hash = await git('rev-parse', '--short', 'HEAD');
    return (await git('status', '--porcelain', '--untracked-files=no')) === '' ? hash : `${hash}+`;
  } catch {
    return null;
  }
}

async function git(...args: string[]): Promise<string> {
  const {stdout} = await promisify(execFile)('git', args, {cwd: import.meta.dirname});
  return stdout.trim();
}
