import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it, vi} from 'vitest';
import {hasNvidiaDriver} from '../../src/engine/library/host.js';
import {locateTensorFlow} from '../../src/engine/library/locate.js';

const here = await locateTensorFlow({device: 'cpu'});
const library = here.kind === 'found' ? here.location.folder : null;

let empty: string;
beforeEach(() => {
  vi.resetModules(); // startEngine runs once a process: each law gets a new copy
  empty = mkdtempSync(join(tmpdir(), 'downcycle-start-'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(empty, {recursive: true});
});

/** A machine with neither TensorFlow in the cache nor Python. */
function withoutLibrary(): void {
  vi.stubEnv('DOWNCYCLE_TENSORFLOW', '');
  vi.stubEnv('XDG_CACHE_HOME', empty);
  vi.stubEnv('PATH', empty);
}

describe('startEngine', () => {
  it('falls back to wasm and says why when device is auto and there is no library', async () => {
    withoutLibrary();
    const {engineInfo, startEngine} = await import('../../src/engine/start.js');
    const info = await startEngine();
    expect(info).toMatchObject({engine: 'wasm', device: 'wasm', precision: 'float32', location: null});
    expect(info.notes).toHaveLength(1);
    expect(info.notes[0]).toMatch(/^TensorFlow was not found: .*python3.*WebAssembly engine runs instead\.$/);
    expect(engineInfo()).toBe(info);
    expect(await startEngine({device: 'cpu'})).toBe(info);
  });

  it('takes wasm without a note when it was asked for, and says that bfloat16 is ignored', async () => {
    const {startEngine} = await import('../../src/engine/start.js');
    const info = await startEngine({device: 'wasm', precision: 'bfloat16'});
    expect(info.notes).toEqual(['engine.precision bfloat16 is ignored: wasm computes in float32.']);
    expect(info.precision).toBe('float32');
  });

  it('refuses a device of its own choice without a library, and says what to do', async () => {
    withoutLibrary();
    const {startEngine} = await import('../../src/engine/start.js');
    for (const device of ['cpu', 'cuda'] as const) {
      await expect(startEngine({device})).rejects.toMatchObject({
        name: 'EnvironmentError',
        message: expect.stringContaining(`engine.device is ${device}, but TensorFlow was not found`) as string,
        hint: expect.stringContaining('scripts/setup.mjs') as string,
      });
    }
  });

  it('refuses a library path that holds none, also when device is auto', async () => {
    const {startEngine} = await import('../../src/engine/start.js');
    await expect(startEngine({library: empty})).rejects.toMatchObject({
      name: 'EnvironmentError',
      message: expect.stringContaining(`engine.library names ${empty}`) as string,
    });
    vi.stubEnv('DOWNCYCLE_TENSORFLOW', empty);
    await expect(startEngine()).rejects.toThrow(`DOWNCYCLE_TENSORFLOW names ${empty}`);
  });

  it('has no info before it started', async () => {
    const {engineInfo} = await import('../../src/engine/start.js');
    expect(() => engineInfo()).toThrow('No engine is running: call startEngine() first.');
    const {getEngine} = await import('../../src/engine/state.js');
    expect(() => getEngine()).toThrow('No engine is running');
  });

  it.skipIf(library === null || hasNvidiaDriver())(
    'refuses cuda where TensorFlow finds no GPU, and starts on the processor afterwards',
    async () => {
      const {startEngine} = await import('../../src/engine/start.js');
      await expect(startEngine({device: 'cuda', library: library!})).rejects.toMatchObject({
        name: 'EnvironmentError',
        message: 'engine.device is cuda, but TensorFlow found no usable GPU.',
        hint: expect.stringContaining('doctor') as string,
      });
      const info = await startEngine({device: 'cpu', library: library!});
      expect(info).toMatchObject({engine: 'tensorflow', device: 'cpu', precision: 'float32', notes: []});
      expect(info.version).toMatch(/^\d+\.\d+\.\d+/);
      expect(info.location).toMatchObject({folder: library, source: 'config'});
    },
  );

  it.skipIf(library === null)('says what a damaged library lacks', async () => {
    for (const name of ['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2']) {
      writeFileSync(join(empty, name), 'not a library');
    }
    const {startEngine} = await import('../../src/engine/start.js');
    await expect(startEngine({library: empty})).rejects.toMatchObject({
      name: 'EnvironmentError',
      message: expect.stringContaining(`TensorFlow in ${empty} could not be loaded: `) as string,
    });
  });
});
