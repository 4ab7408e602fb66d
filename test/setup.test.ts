import {spawn} from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {join} from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {afterAll, beforeAll, beforeEach, describe, expect, it} from 'vitest';
import {type FakeMachine, makeMachine} from './engine/library/fake-machine.js';
import {tinyTensorFlow} from './engine/library/make-wheel.js';

const REPOSITORY = join(import.meta.dirname, '..');
const LOCK = {
  packages: {
    '': {},
    'node_modules/one': {version: '1.0.0', integrity: 'sha512-x'},
    'node_modules/other-os': {version: '1', optional: true},
  },
};

/** What set-up reads and the least it compiles; the whole project would take too long. */
const COPIED = [
  'scripts/setup.mjs',
  'tsconfig.json',
  'tsconfig.build.json',
  'src/engine/library',
  'src/util/errors.ts',
  'src/util/alive.ts',
  'src/util/atomic.ts',
  'src/util/turn.ts',
];

/** Stands in for `npm ci`: links what the build needs, and writes npm's own list last. */
const NPM = `#!/bin/sh
PATH=/usr/bin:/bin
F=$(dirname "$0")/../state
echo "npm $*" >> "$F/log"
if [ -f "$F/npm-fails" ]; then echo "npm error code E404" >&2; exit 1; fi
mkdir -p node_modules && rm -f node_modules/.package-lock.json
for name in typescript @types undici-types; do ln -sfn "${join(REPOSITORY, 'node_modules')}/$name" node_modules/$name; done
if [ -f "$F/npm-hangs" ]; then sleep 30; fi
cp package-lock.json node_modules/.package-lock.json
`;

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

let machine: FakeMachine;
let root: string;

/** A checkout of what set-up touches, on a machine of our own making; built once, since compiling takes seconds. */
beforeAll(() => {
  machine = makeMachine();
  root = join(machine.root, 'checkout');
  for (const path of COPIED) {
    mkdirSync(join(root, path, '..'), {recursive: true});
    cpSync(join(REPOSITORY, path), join(root, path), {recursive: true});
  }
  mkdirSync(join(root, 'src/cli'));
  writeFileSync(join(root, 'src/cli/main.ts'), 'export {};\n');
  writeFileSync(join(root, 'package.json'), '{"type": "module"}');
  writeFileSync(join(root, 'package-lock.json'), JSON.stringify(LOCK));
  writeFileSync(join(machine.root, 'bin/npm'), NPM);
  chmodSync(join(machine.root, 'bin/npm'), 0o755);
  machine.addWheel('tensorflow-cpu', tinyTensorFlow());
});
beforeEach(() => rmSync(join(machine.root, 'state/log'), {force: true}));
afterAll(() => machine.remove());

function setup(
  args: readonly string[] = [],
  onOutput: (child: ReturnType<typeof spawn>) => void = () => {},
): Promise<Outcome> {
  return new Promise((resolve) => {
    const begin = performance.now();
    const child = spawn(process.execPath, [join(root, 'scripts/setup.mjs'), ...args], {
      cwd: machine.root,
      env: machine.env,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data: Buffer) => {
      stdout += data.toString();
      onOutput(child);
    });
    child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
    child.on('close', (code) => resolve({code, stdout, stderr, seconds: (performance.now() - begin) / 1000}));
  });
}

function npmRuns(): string[] {
  const log = join(machine.root, 'state/log');
  return existsSync(log)
    ? readFileSync(log, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith('npm '))
    : [];
}

const switchOn = (name: string): (() => void) => {
  const path = join(machine.root, 'state', name);
  writeFileSync(path, '');
  return () => rmSync(path);
};

// One machine lives through all of these in order, as a person's does.
describe.sequential('setup.mjs', () => {
  it('refuses an unknown option, naming the known ones', async () => {
    const {code, stderr} = await setup(['--gpu']);
    expect([code, stderr]).toEqual([2, 'Unknown option --gpu. Options: --cuda, --skip-engine, --strict, --help.\n']);
  });

  it('says what npm said when the packages cannot be installed', async () => {
    const switchOff = switchOn('npm-fails');
    const {code, stderr} = await setup();
    switchOff();
    expect([code, stderr]).toEqual([6, 'npm ci failed: npm error code E404\n']);
  });

  it('ends npm with itself when interrupted while installing', async () => {
    const switchOff = switchOn('npm-hangs');
    const {code, stderr, seconds} = await setup([], (child) => void sleep(300).then(() => child.kill('SIGINT')));
    switchOff();
    expect([code, stderr]).toEqual([130, '\nSet-up was interrupted; run it again to complete it.\n']);
    expect(seconds).toBeLessThan(20);
  });

  it('completes when it is run again: packages, build and engine, a line when each begins and ends', async () => {
    const {code, stdout, stderr} = await setup();
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(npmRuns()).toEqual(['npm ci --ignore-scripts --include=dev --no-audit --no-fund --loglevel=error']);
    expect(stdout.replace(/\d+ s$/gm, 'N s')).toBe(
      [
        '  packages   installing 1 packages',
        '  packages   1 installed in N s',
        '  build      compiling',
        '  build      compiled in N s',
        '  engine     unpacking and checking tensorflow-cpu',
        `  engine     TensorFlow is in ${machine.cacheFolder}/tensorflow/2.21.0-cpu/tensorflow`,
        '',
      ].join('\n'),
    );
  });

  it('does nothing, says nothing and takes under a second at the next start', async () => {
    const {code, stdout, seconds} = await setup();
    expect([code, stdout, npmRuns(), machine.downloads(), machine.probes()]).toEqual([0, '', [], [], 0]);
    expect(seconds).toBeLessThan(1);
  });

  it('compiles again when a source changes, and drops what is no longer there', async () => {
    const extra = join(root, 'src/extra.ts');
    writeFileSync(extra, 'export const one = 1;\n');
    expect((await setup()).stdout).toContain('compiled');
    expect(existsSync(join(root, 'dist/extra.js'))).toBe(true);
    rmSync(extra);
    expect((await setup()).stdout).toContain('compiled');
    expect(existsSync(join(root, 'dist/extra.js'))).toBe(false);
    expect(statSync(join(root, 'dist/cli/main.js')).mode & 0o111, 'npx can run it').toBe(0o111);
  });

  it('fails with the first compiler error, and compiles again at the next start', async () => {
    const broken = join(root, 'src/broken.ts');
    writeFileSync(broken, 'export const one: string = 1;\n');
    const {code, stderr} = await setup();
    expect(code).toBe(6);
    expect(stderr).toMatch(/^The build failed: src\/broken\.ts\(1,14\): error TS2322/);
    rmSync(broken);
    expect((await setup()).code).toBe(0);
  });

  it('installs again when the lock file asks for another version', async () => {
    const one = {version: '1.0.1', integrity: 'sha512-y'};
    writeFileSync(
      join(root, 'package-lock.json'),
      JSON.stringify({packages: {...LOCK.packages, 'node_modules/one': one}}),
    );
    await setup();
    expect(npmRuns()).toHaveLength(1);
  });

  it('goes on with the wasm engine, in one line, when there is no network', async () => {
    rmSync(machine.cacheFolder, {recursive: true});
    machine.setPip('offline');
    const {code, stdout, stderr} = await setup();
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(
      /^ {2}engine {5}using the slower wasm engine: Downloading .*no connection to the package index.*\n$/,
    );
  });

  it('goes on with the wasm engine when there is no pip or no python3', async () => {
    machine.setPip('absent');
    expect(await setup()).toMatchObject({code: 0, stdout: expect.stringContaining('this Python has no pip') as string});
    const python = join(machine.root, 'bin/python3');
    const script = readFileSync(python);
    rmSync(python);
    expect(await setup()).toMatchObject({code: 0, stdout: expect.stringContaining('no python3 on the PATH') as string});
    writeFileSync(python, script, {mode: 0o755});
  });

  it('fails instead with --strict or --cuda', async () => {
    machine.setPip('offline');
    for (const flag of ['--strict', '--cuda']) {
      const {code, stderr} = await setup([flag]);
      expect([code, stderr]).toEqual([6, expect.stringContaining('no connection to the package index')]);
    }
  });

  it('does not look for an engine with --skip-engine', async () => {
    expect(await setup(['--skip-engine'])).toMatchObject({code: 0, stdout: ''});
    expect(machine.probes()).toBe(0);
  });

  it('leaves packages and build alone where it was installed as a package', async () => {
    const installed = join(machine.root, 'installed');
    mkdirSync(join(installed, 'scripts'), {recursive: true});
    cpSync(join(root, 'scripts/setup.mjs'), join(installed, 'scripts/setup.mjs'));
    symlinkSync(join(root, 'dist'), join(installed, 'dist'));
    writeFileSync(join(installed, 'package.json'), '{"type": "module"}');
    machine.setPip('serves');
    const checkout = root;
    root = installed;
    const {code, stdout} = await setup();
    root = checkout;
    expect([code, npmRuns()]).toEqual([0, []]);
    expect(stdout).toContain('TensorFlow is in');
  });
});
