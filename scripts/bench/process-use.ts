import {readFile} from 'node:fs/promises';

/** What a process has used, or null where the system has no /proc. */
export interface ProcessUse {
  /** Most memory it ever had resident (VmHWM), in bytes. */
  readonly peakBytes: number;
  /** Memory resident now. */
  readonly residentBytes: number;
  /** Processor time of all its threads, in clock ticks of 10 ms. */
  readonly cpuTicks: number;
}

/** Reads /proc for a process that runs. */
export async function processUse(pid: number): Promise<ProcessUse | null> {
  try {
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    return {peakBytes: kilobytes(status, 'VmHWM'), residentBytes: kilobytes(status, 'VmRSS'), cpuTicks: ticks(stat)};
  } catch {
    return null;
  }
}

/** A `VmHWM:  1234 kB` line in bytes; 0 if there is none. */
export function kilobytes(status: string, name: string): number {
  const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status);
  return Number(found?.[1] ?? 0) * 1024;
}

/** User and system time: fields 14 and 15. The name, field 2, is in brackets and may hold spaces. */
export function ticks(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
