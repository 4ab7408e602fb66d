import {describe, expect, it} from 'vitest';
import {type Host, unsupportedReason} from '../../../src/engine/library/host.js';
import {pipArguments} from '../../../src/engine/library/python.js';
import {
  compareVersions,
  isTestedVersion,
  TENSORFLOW_VERSION,
  TESTED_VERSIONS,
  versionWarning,
  wheelsFor,
} from '../../../src/engine/library/versions.js';
import {LINUX} from './fake-machine.js';

describe('versions', () => {
  it('compares by number, not by letter', () => {
    expect(compareVersions('2.9.0', '2.21.0')).toBeLessThan(0);
    expect(compareVersions('2.21', '2.21.0')).toBe(0);
    expect(compareVersions('10.0', '9.9.9')).toBeGreaterThan(0);
  });

  it('the version that is fetched is a tested one', () => {
    expect(isTestedVersion(TENSORFLOW_VERSION)).toBe(true);
  });

  it('the range includes its first version, excludes its last, and has no pre-releases', () => {
    expect(isTestedVersion(TESTED_VERSIONS.from)).toBe(true);
    expect(isTestedVersion(TESTED_VERSIONS.below)).toBe(false);
    expect(isTestedVersion(`${TESTED_VERSIONS.from}rc1`)).toBe(false);
  });

  it('an untested and an unknown version each warn with the range; a tested one does not', () => {
    expect(versionWarning('2.15.1')).toBe(
      'TensorFlow 2.15.1 is untested; tested is 2.21.0 up to, not including, 2.22.0.',
    );
    expect(versionWarning(null)).toContain('unknown');
    expect(versionWarning(TENSORFLOW_VERSION)).toBeNull();
  });
});

describe('wheelsFor', () => {
  it('names one wheel for the processor: tensorflow-cpu, and on arm64, where there is none, tensorflow', () => {
    expect(wheelsFor('cpu', 'x64').map(({name}) => name)).toEqual(['tensorflow-cpu']);
    expect(wheelsFor('cpu', 'arm64').map(({name}) => name)).toEqual(['tensorflow']);
  });

  it('names for CUDA the wheels of the extra and-cuda of TensorFlow 2.21, within its ranges', () => {
    const ranges: Record<string, readonly [string, string]> = {
      'nvidia-cublas-cu12': ['12.5.3.2', '13.0'],
      'nvidia-cuda-cupti-cu12': ['12.5.82', '13.0'],
      'nvidia-cuda-nvcc-cu12': ['12.5.82', '13.0'],
      'nvidia-cuda-nvrtc-cu12': ['12.5.82', '13.0'],
      'nvidia-cuda-runtime-cu12': ['12.5.82', '13.0'],
      'nvidia-cudnn-cu12': ['9.3.0.75', '10.0'],
      'nvidia-cufft-cu12': ['11.2.3.61', '12.0'],
      'nvidia-curand-cu12': ['10.3.6.82', '11.0'],
      'nvidia-cusolver-cu12': ['11.6.3.83', '12.0'],
      'nvidia-cusparse-cu12': ['12.5.1.3', '13.0'],
      'nvidia-nccl-cu12': ['2.27.7', '3.0'],
      'nvidia-nvjitlink-cu12': ['12.5.82', '13.0'],
    };
    const [tensorflow, ...nvidia] = wheelsFor('cuda', 'x64');
    expect(tensorflow?.name).toBe('tensorflow');
    expect(nvidia.map(({name}) => name)).toEqual(Object.keys(ranges));
    for (const {name, version} of nvidia) {
      const [from, below] = ranges[name]!;
      expect(compareVersions(version, from), name).toBeGreaterThanOrEqual(0);
      expect(compareVersions(version, below), name).toBeLessThan(0);
    }
  });

  it('takes of each wheel what the libraries need to run, and no headers or Python code', () => {
    const [tensorflow, cublas] = wheelsFor('cuda', 'x64');
    const taken = (wheel: typeof cublas, ...paths: string[]): string[] =>
      paths.filter((path) => wheel?.needed.test(path));
    const libraries = ['tensorflow/libtensorflow_cc.so.2', 'tensorflow/libtensorflow_framework.so.2'];
    expect(taken(tensorflow, ...libraries, 'tensorflow/include/a.h', 'tensorflow/python/_pywrap_tfe.so')).toEqual(
      libraries,
    );
    const parts = ['lib/libcublas.so.12', 'bin/ptxas', 'nvvm/libdevice/libdevice.10.bc'].map(
      (path) => `nvidia/x/${path}`,
    );
    expect(taken(cublas, ...parts, 'nvidia/x/include/a.h', 'nvidia/x/lib/__init__.py', 'nvidia/x/lib/a.a')).toEqual(
      parts,
    );
  });
});

describe('pipArguments', () => {
  it('fixes Python version, ABI and platform, so that any installed Python fetches the same wheel', () => {
    const line = pipArguments(wheelsFor('cpu', 'x64')[0]!, 'x64', '/to').join(' ');
    expect(line).toContain('-m pip download --no-deps --only-binary=:all:');
    expect(line).toContain('--python-version 3.11 --implementation cp --abi cp311 --platform manylinux_2_27_x86_64');
    expect(line).toMatch(/--dest \/to tensorflow-cpu==2\.21\.0$/);
  });

  it('asks for aarch64 on arm64', () => {
    const line = pipArguments(wheelsFor('cpu', 'arm64')[0]!, 'arm64', '/to').join(' ');
    expect(line).toContain('--platform manylinux_2_27_aarch64');
    expect(line).not.toContain('x86_64');
  });
});

describe('unsupportedReason', () => {
  it('has none for Linux with a current glibc', () => {
    expect(unsupportedReason(LINUX, 'cuda')).toBeNull();
    expect(unsupportedReason({...LINUX, arch: 'arm64'}, 'cpu')).toBeNull();
  });

  it.each<[string, Partial<Host>, 'cpu' | 'cuda', string]>([
    ['macOS', {platform: 'darwin', glibc: null}, 'cpu', 'this is darwin'],
    ['Windows', {platform: 'win32', glibc: null}, 'cpu', 'this is win32'],
    ['musl', {glibc: null}, 'cpu', 'musl'],
    ['an old glibc', {glibc: '2.17'}, 'cpu', 'needs glibc 2.27; this machine has 2.17'],
    ['another processor', {arch: 'riscv64'}, 'cpu', 'this machine is riscv64'],
    ['CUDA on arm64', {arch: 'arm64'}, 'cuda', 'CUDA is published for x64 only'],
  ])('names %s', (_, host, variant, reason) => {
    expect(unsupportedReason({...LINUX, ...host}, variant)).toContain(reason);
  });
});
