import {mkdirSync, rmSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {defaultCacheFolder} from '../../../src/engine/library/cache.js';
import {type LibraryLocation, type LocateOptions, locateTensorFlow} from '../../../src/engine/library/locate.js';
import {TENSORFLOW_VERSION, type Variant} from '../../../src/engine/library/versions.js';
import {type FakeMachine, makeMachine} from './fake-machine.js';

const LIBRARIES = ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2'];

let machine: FakeMachine;
beforeEach(() => {
  machine = makeMachine();
});
afterEach(() => machine.remove());

async function locate(more: Partial<LocateOptions> = {}): Promise<LibraryLocation | readonly string[]> {
  const lookup = await locateTensorFlow({device: 'auto', env: machine.env, hasGpu: false, ...more});
  return lookup.kind === 'found' ? lookup.location : lookup.tried;
}

/** A Python package folder as pip leaves it. */
function sitePackages(name: string, version: string, isCuda = false): string {
  const folder = join(machine.root, name, 'tensorflow');
  mkdirSync(join(folder, 'python/platform'), {recursive: true});
  mkdirSync(join(machine.root, name, `tensorflow_cpu-${version}.dist-info`));
  for (const library of LIBRARIES) writeFileSync(join(folder, library), '');
  const info = `build_info = collections.OrderedDict([('is_cuda_build', ${isCuda ? 'True' : 'False'})])`;
  writeFileSync(join(folder, 'python/platform/build_info.py'), info);
  return folder;
}

/** A whole runtime in the cache. */
function fillCache(variant: Variant): string {
  const root = join(machine.cacheFolder, 'tensorflow', `${TENSORFLOW_VERSION}-${variant}`);
  mkdirSync(join(root, 'tensorflow'), {recursive: true});
  for (const library of LIBRARIES) writeFileSync(join(root, 'tensorflow', library), 'xyz');
  const files = Object.fromEntries(LIBRARIES.map((library) => [`tensorflow/${library}`, 3]));
  writeFileSync(join(root, 'complete.json'), JSON.stringify({version: TENSORFLOW_VERSION, variant, files}));
  return join(root, 'tensorflow');
}

describe('locateTensorFlow', () => {
  it('looks at the config, then the environment, then our cache and Python', async () => {
    const [config, environment, python] = ['a', 'b', 'c'].map((name) => sitePackages(name, TENSORFLOW_VERSION)) as [
      string,
      string,
      string,
    ];
    machine.setTensorFlow(python);
    const cache = fillCache('cpu');
    const env = {...machine.env, DOWNCYCLE_TENSORFLOW: environment};
    expect(await locate({env, path: config})).toMatchObject({folder: config, source: 'config'});
    expect(await locate({env})).toMatchObject({folder: environment, source: 'environment'});
    expect(await locate()).toMatchObject({folder: cache, source: 'cache', version: TENSORFLOW_VERSION});
    rmSync(dirname(cache), {recursive: true});
    expect(await locate()).toMatchObject({folder: python, source: 'python', version: TENSORFLOW_VERSION});
  });

  it('does not start Python when the cache has the build wanted', async () => {
    fillCache('cpu');
    await locate({device: 'cpu'});
    expect(machine.probes()).toBe(0);
    await locate({device: 'cuda'});
    expect(machine.probes()).toBe(1);
  });

  it('says for each place why there is none', async () => {
    expect(await locate()).toEqual([
      'python3 on the PATH can import no tensorflow.',
      `${machine.cacheFolder} holds no TensorFlow ${TENSORFLOW_VERSION} built for cpu or cuda.`,
    ]);
    machine.removePython();
    expect(await locate()).toContain('python3 on the PATH can import no tensorflow.');
  });

  it('passes over a Python tensorflow of an untested version, and says so', async () => {
    const folder = sitePackages('old', '2.15.1');
    machine.setTensorFlow(folder);
    expect(await locate()).toContain(
      `${folder}: TensorFlow 2.15.1 is untested; tested is 2.21.0 up to, not including, 2.22.0.`,
    );
  });

  it('takes an explicit folder of an untested version, with a warning', async () => {
    expect(await locate({path: sitePackages('old', '2.15.1')})).toMatchObject({
      version: '2.15.1',
      warnings: [expect.stringContaining('2.15.1 is untested')],
    });
  });

  it('takes an explicit folder that tells no version', async () => {
    const folder = join(machine.root, 'bare');
    mkdirSync(folder);
    for (const library of LIBRARIES) writeFileSync(join(folder, library), '');
    expect(await locate({path: folder})).toMatchObject({folder, version: null, variant: 'cpu', warnings: []});
  });

  it('never replaces a wrong explicit folder: it names what it looked for', async () => {
    fillCache('cpu');
    const missing =
      /engine\.library names .*nowhere, which does not hold both libtensorflow_framework\.so\.2 and libtensorflow_cc\.so\.2/;
    await expect(locate({path: join(machine.root, 'nowhere')})).rejects.toThrow(missing);
    const env = {...machine.env, DOWNCYCLE_TENSORFLOW: machine.root};
    await expect(locate({env})).rejects.toThrow(/DOWNCYCLE_TENSORFLOW names/);
  });

  it('takes a cached runtime for whole only with its marker and every file at its size', async () => {
    const folder = fillCache('cpu');
    writeFileSync(join(folder, LIBRARIES[0]!), 'x');
    expect(await locate()).toHaveLength(2);
    fillCache('cpu');
    writeFileSync(join(folder, '../complete.json'), '{"version": "2.2');
    expect(await locate()).toHaveLength(2);
  });

  it('prefers the build that fits the machine', async () => {
    const [cpu, cuda] = [fillCache('cpu'), fillCache('cuda')];
    expect(await locate({hasGpu: true})).toMatchObject({folder: cuda, variant: 'cuda'});
    expect(await locate({hasGpu: false})).toMatchObject({folder: cpu, variant: 'cpu'});
    expect(await locate({device: 'cpu', hasGpu: true})).toMatchObject({folder: cpu});
    expect(await locate({device: 'cuda', hasGpu: false})).toMatchObject({folder: cuda});
  });

  it('runs the processor on a CUDA build if there is no other, but never the GPU on a CPU build', async () => {
    const cuda = fillCache('cuda');
    expect(await locate({device: 'cpu'})).toMatchObject({folder: cuda});
    rmSync(dirname(cuda), {recursive: true});
    fillCache('cpu');
    machine.setTensorFlow(sitePackages('python', TENSORFLOW_VERSION));
    expect(await locate({device: 'cuda'})).toContain(
      `${join(machine.root, 'python/tensorflow')} is a build for cpu; wanted is one for cuda.`,
    );
  });

  it('tells the build of a Python tensorflow from its build information', async () => {
    machine.setTensorFlow(sitePackages('python', TENSORFLOW_VERSION, true));
    expect(await locate({device: 'cuda'})).toMatchObject({variant: 'cuda', source: 'python'});
  });

  it('warns when a GPU is here and the build has no CUDA', async () => {
    fillCache('cpu');
    expect(await locate({hasGpu: true})).toMatchObject({warnings: [expect.stringContaining('setup.mjs --cuda')]});
    expect(await locate({hasGpu: true, device: 'cpu'})).toMatchObject({warnings: []});
  });
});

describe('defaultCacheFolder', () => {
  it('is downcycle in XDG_CACHE_HOME, or in ~/.cache if that is unset or relative', () => {
    expect(defaultCacheFolder({XDG_CACHE_HOME: '/x', HOME: '/h'})).toBe('/x/downcycle');
    expect(defaultCacheFolder({HOME: '/h'})).toBe('/h/.cache/downcycle');
    expect(defaultCacheFolder({XDG_CACHE_HOME: 'x', HOME: '/h'})).toBe('/h/.cache/downcycle');
  });
});
