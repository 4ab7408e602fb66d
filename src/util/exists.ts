import {stat} from 'node:fs/promises';

/** Whether there is a file or folder of that name that we may look at. */
export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}
