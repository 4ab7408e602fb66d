import {systemCode} from './errors.js';

/** Whether a process of this host is there, also one that belongs to someone else. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}
