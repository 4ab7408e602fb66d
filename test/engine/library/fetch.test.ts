import {existsSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import {afterEach, beforeEach, describe, expect, it} from 'vitest';
import {type FetchOptions, type FetchProgress, fetchTensorFlow} from '../../../src/engine/library/fetch.js';
import {wheelsFor} from '../../../src/engine/library/versions.js';
import {EnvironmentError} from '../../../src/util/errors.js';
import {type FakeMachine, LINUX, makeMachine} from './fake-machine.js';
import {makeWheel, tinyTensorFlow} from './make-wheel.js';

let machine: FakeMachine;
beforeEach(() => {
  machine = makeMachine();
});
afterEach(() => machine.remove());

const fetch = (more: Partial<FetchOptions> = {}): Promise<string> =>
  fetchTensorFlow({variant: 'cpu', env: machine.env, cacheFolder: machine.cacheFolder, host: LINUX, ...more});

/** The message and hint of the error that `body` must end in. */
async function failure(body: Promise<unknown>): Promise<string> {
  const error = await body.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(EnvironmentError);
  const {message, hint} = error as EnvironmentError;
  expect(message).not.toContain('\n');
  return `${message} ${hint}`;
}

/** What lies in the cache's tensorflow folder. */
function left(): string[] {
  const folder = join(machine.cacheFolder, 'tensorflow');
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function addCudaWheels(): string[] {
  const [tensorflow, ...nvidia] = wheelsFor('cuda', 'x64').map(({name}) => name);
  machine.addWheel(tensorflow!, tinyTensorFlow());
  for (const name of nvidia) {
    const part = name.slice('nvidia-'.length, -'-cu12'.length).replaceAll('-', '_');
    machine.addWheel(name, makeWheel([{name: `nvidia/${part}/lib/lib${part}.so.12`, data: Buffer.from(part)}]));
  }
  return [tensorflow!, ...nvidia];
}

describe('fetchTensorFlow', () => {
  it('leaves one whole runtime and nothing else in the cache', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    const folder = await fetch();
    expect(folder).toBe(join(machine.cacheFolder, 'tensorflow/2.21.0-cpu/tensorflow'));
    expect(readdirSync(folder).sort()).toEqual(['libtensorflow_cc.so.2', 'libtensorflow_framework.so.2']);
    expect(left()).toEqual(['2.21.0-cpu']);
  });

  it('does not ask pip again once the runtime is whole', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    expect(await fetch()).toBe(await fetch());
    expect(machine.downloads()).toEqual(['tensorflow-cpu']);
  });

  it('makes a damaged runtime anew', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    const library = join(await fetch(), 'libtensorflow_cc.so.2');
    truncateSync(library, 100);
    await fetch();
    expect(readFileSync(library, 'utf8')).toBe('cc '.repeat(5000));
  });

  it('lays CUDA out as site-packages does', async () => {
    const names = addCudaWheels();
    const folder = await fetch({variant: 'cuda'});
    expect(machine.downloads()).toEqual(names);
    expect(readFileSync(join(folder, '../nvidia/cuda_runtime/lib/libcuda_runtime.so.12'), 'utf8')).toBe('cuda_runtime');
    expect(readdirSync(join(folder, '../nvidia'))).toHaveLength(12);
  });

  it('goes on where an interrupted fetch stopped, downloading no wheel twice', async () => {
    const names = addCudaWheels();
    rmSync(join(machine.root, 'state', `${names[5]}.whl`)); // the sixth is not to be had at first
    await failure(fetch({variant: 'cuda'}));
    addCudaWheels();
    await fetch({variant: 'cuda'});
    expect(machine.downloads()).toEqual([...names.slice(0, 6), ...names.slice(5)]);
    expect(left()).toEqual(['2.21.0-cuda']);
  });

  it('takes a wheel that was downloaded but not unpacked when the process was killed', async () => {
    const work = join(machine.cacheFolder, 'tensorflow/2.21.0-cpu.part');
    mkdirSync(join(work, 'root/tensorflow'), {recursive: true});
    writeFileSync(join(work, 'root/tensorflow/libtensorflow_cc.so.2'), 'half of it');
    writeFileSync(join(work, 'tensorflow-cpu-2.21.0.whl'), tinyTensorFlow());
    const folder = await fetch();
    expect(machine.downloads()).toEqual([]);
    expect(readFileSync(join(folder, 'libtensorflow_cc.so.2'), 'utf8')).toBe('cc '.repeat(5000));
  });

  it('leaves nothing when a hash differs, and can be tried again', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow({'tensorflow/libtensorflow_cc.so.2': 'B'.repeat(43)}));
    expect(await failure(fetch())).toMatch(/is damaged: tensorflow\/libtensorflow_cc\.so\.2 has SHA-256/);
    expect(left()).toEqual([]);
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    await fetch();
    expect(left()).toEqual(['2.21.0-cpu']);
  });

  it('leaves nothing when the wheel lacks a library', async () => {
    machine.addWheel('tensorflow-cpu', makeWheel([{name: 'tensorflow/libtensorflow_cc.so.2', data: Buffer.from('x')}]));
    expect(await failure(fetch())).toContain('lacks one of');
    expect(left()).toEqual([]);
  });

  it('fetches once when two ask at the same time, and tells the second who does it', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    const seen: FetchProgress[] = [];
    const onProgress = (progress: FetchProgress): number => seen.push(progress);
    const [one, two] = await Promise.all([fetch({onProgress}), fetch({onProgress})]);
    expect(one).toBe(two);
    expect(machine.downloads()).toEqual(['tensorflow-cpu']);
    expect(seen).toContainEqual({stage: 'wait', holder: process.pid});
  });

  it('reports how much is unpacked', async () => {
    machine.addWheel('tensorflow-cpu', tinyTensorFlow());
    const seen: FetchProgress[] = [];
    await fetch({onProgress: (progress) => seen.push(progress)});
    expect(seen.at(-1)).toEqual({stage: 'unpack', wheel: 'tensorflow-cpu', megabytes: 0.015009});
  });
});

describe('fetchTensorFlow says in one line', () => {
  it('that there is no python3', async () => {
    machine.removePython();
    expect(await failure(fetch())).toContain('There is no python3 on the PATH');
    expect(left()).toEqual([]);
  });

  it('that python3 has no pip', async () => {
    machine.setPip('absent');
    expect(await failure(fetch())).toContain('this Python has no pip. Install it');
  });

  it('that there is no network', async () => {
    machine.setPip('offline');
    expect(await failure(fetch())).toBe(
      'Downloading tensorflow-cpu 2.21.0 with pip failed: no connection to the package index. ' +
        'Connect to the network, or set the proxy that pip needs, and try again.',
    );
    expect(left()).toEqual([]);
  });

  it('that the index does not have the wheel', async () => {
    expect(await failure(fetch())).toContain('the package index does not have it');
  });

  it("pip's last words if they are unknown", async () => {
    machine.setPip('broken');
    expect(await failure(fetch())).toContain('with pip failed: ValueError: odd');
  });

  it('that the machine is not supported, without asking pip', async () => {
    expect(await failure(fetch({host: {platform: 'darwin', arch: 'arm64', glibc: null}}))).toContain('this is darwin');
    expect(machine.downloads()).toEqual([]);
  });

  it('that the cache cannot be written', async () => {
    writeFileSync(join(machine.root, 'file'), '');
    const cacheFolder = join(machine.root, 'file', 'cache');
    expect(await failure(fetch({cacheFolder}))).toContain(cacheFolder);
  });
});
