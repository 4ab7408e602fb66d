import {execFile} from 'node:child_process';
import {mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import {promisify} from 'node:util';

const run = promisify(execFile);

/** A published package, pinned: the same version gives the same text. */
export interface Package {
  readonly from: 'npm' | 'debian';
  readonly name: string;
  readonly version: string;
}

/**
 * Downloads a package through its ordinary client (`npm pack`, `apt-get download`) and unpacks it, without installing it.
 *
 * @returns the folder with its files: the package root for npm, the file system root for Debian.
 * @throws if the client is missing or no longer offers that version.
 */
export async function fetchPackage({from, name, version}: Package, work: string): Promise<string> {
  const folder = join(work, from, name);
  await mkdir(folder, {recursive: true});
  switch (from) {
    case 'npm': {
      const archive = await lastLine('npm', ['pack', '--silent', `${name}@${version}`], folder);
      await run('tar', ['-xzf', archive], {cwd: folder});
      return join(folder, 'package');
    }
    case 'debian': {
      await run('apt-get', ['download', `${name}=${version}`], {cwd: folder});
      const archive = await lastLine('find', ['.', '-name', '*.deb'], folder);
      await run('dpkg-deb', ['-x', archive, folder], {cwd: folder});
      return folder;
    }
  }
}

async function lastLine(command: string, args: readonly string[], cwd: string): Promise<string> {
  const {stdout} = await run(command, args, {cwd});
  return stdout.trim().split('\n').at(-1) ?? '';
}
