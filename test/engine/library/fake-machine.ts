import {chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Host} from '../../../src/engine/library/host.js';

/** A machine every wheel runs on. */
export const LINUX: Host = {platform: 'linux', arch: 'x64', glibc: '2.36'};

/** What pip of a fake machine does: serve the wheels put there, say what it says offline, or not be there. */
type Pip = 'serves' | 'offline' | 'absent' | 'broken';

/** A machine with a home, a cache and a python3 of our own making. */
export interface FakeMachine {
  readonly root: string;
  readonly cacheFolder: string;
  /** Environment whose PATH holds the fake python3 only. */
  readonly env: NodeJS.ProcessEnv;
  addWheel(name: string, bytes: Buffer): void;
  setPip(pip: Pip): void;
  /** The folder that an import of tensorflow would come from. */
  setTensorFlow(folder: string): void;
  removePython(): void;
  /** Names of the wheels that pip was asked for, in order. */
  downloads(): string[];
  /** How often python3 was asked where tensorflow is. */
  probes(): number;
  remove(): void;
}

/** A shell script that stands in for `python3 -m pip download` and for the look for tensorflow. */
const PYTHON = `#!/bin/sh
PATH=/usr/bin:/bin
F=$(dirname "$0")/../state
if [ "$1" = -c ]; then echo probe >> "$F/log"; cat "$F/tensorflow"; exit 0; fi
for arg; do last=$arg; if [ "$previous" = --dest ]; then dest=$arg; fi; previous=$arg; done
name=\${last%%==*}
echo "download $name" >> "$F/log"
case $(cat "$F/pip") in
absent) echo "/usr/bin/python3: No module named pip" >&2; exit 1;;
broken) echo "Traceback"; echo "ValueError: odd" >&2; exit 2;;
offline)
  echo "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError': Name or service not known" >&2
  echo "ERROR: No matching distribution found for $last" >&2; exit 1;;
esac
if [ ! -f "$F/$name.whl" ]; then echo "ERROR: No matching distribution found for $last" >&2; exit 1; fi
cp "$F/$name.whl" "$dest/$name-1-py3-none-any.whl"
`;

/** Makes a fake machine with working pip and no wheels. */
export function makeMachine(): FakeMachine {
  const root = mkdtempSync(join(tmpdir(), 'downcycle-library-'));
  const [bin, state] = [join(root, 'bin'), join(root, 'state')];
  for (const folder of [bin, state]) mkdirSync(folder);
  const set = (name: string, text: string | Buffer): void => writeFileSync(join(state, name), text);
  set('pip', 'serves');
  set('tensorflow', '');
  writeFileSync(join(bin, 'python3'), PYTHON);
  chmodSync(join(bin, 'python3'), 0o755);
  const log = (): string[] =>
    existsSync(join(state, 'log')) ? readFileSync(join(state, 'log'), 'utf8').trim().split('\n') : [];
  return {
    root,
    cacheFolder: join(root, 'cache', 'downcycle'),
    env: {PATH: bin, HOME: root, XDG_CACHE_HOME: join(root, 'cache')},
    addWheel: (name, bytes) => set(`${name}.whl`, bytes),
    setPip: (pip) => set('pip', pip),
    setTensorFlow: (folder) => set('tensorflow', `${folder}\n`),
    removePython: () => rmSync(join(bin, 'python3')),
    downloads: () => log().flatMap((line) => (line.startsWith('download ') ? [line.slice(9)] : [])),
    probes: () => log().filter((line) => line === 'probe').length,
    remove: () => rmSync(root, {recursive: true, force: true}),
  };
}
