/** Which build of TensorFlow: for the processor alone, or with NVIDIA GPUs. */
export type Variant = 'cpu' | 'cuda';

/** One wheel of the Python package index: what to ask for and which of its files the engine needs. */
export interface Wheel {
  readonly name: string;
  readonly version: string;
  /** Size of the download in units of 10^6 bytes, for progress only. */
  readonly megabytes: number;
  /** Matches the paths inside the wheel that are unpacked; headers and Python code are not. */
  readonly needed: RegExp;
}

/** What pip is told about the machine, in place of the Python that happens to run it. */
export interface WheelTags {
  readonly pythonVersion: string;
  readonly abi: string;
  readonly platforms: readonly string[];
}

/** The two files that make a folder a TensorFlow runtime; the first is loaded first. */
export const LIBRARY_FILES = ['libtensorflow_framework.so.2', 'libtensorflow_cc.so.2'] as const;

/** The version that set-up fetches. */
export const TENSORFLOW_VERSION = '2.21.0';

/** Versions the test suite passes on: from the first, below the second. */
export const TESTED_VERSIONS = {from: '2.21.0', below: '2.22.0'} as const;

/** The oldest C library that TensorFlow's wheels run on. */
export const OLDEST_GLIBC = '2.27';

const TENSORFLOW_FILES = /^tensorflow\/libtensorflow_(cc|framework)\.so\.2$/;
/** Libraries, and the assembler and bitcode that XLA's GPU compiler looks for beside them. */
const NVIDIA_FILES = /^nvidia\/[^/]+\/(lib\/[^/]+\.so(\.\d+)*|bin\/ptxas|nvvm\/.+)$/;

/** The extra `and-cuda` of the wheel's METADATA, each at the newest version its range admits. */
const NVIDIA_WHEELS: readonly Wheel[] = [
  nvidiaWheel('cublas', '12.9.3.13', 581),
  nvidiaWheel('cuda-cupti', '12.9.79', 11),
  nvidiaWheel('cuda-nvcc', '12.9.86', 41),
  nvidiaWheel('cuda-nvrtc', '12.9.86', 90),
  nvidiaWheel('cuda-runtime', '12.9.79', 3),
  nvidiaWheel('cudnn', '9.28.0.42', 717),
  nvidiaWheel('cufft', '11.4.1.4', 201),
  nvidiaWheel('curand', '10.3.10.19', 68),
  nvidiaWheel('cusolver', '11.7.5.82', 338),
  nvidiaWheel('cusparse', '12.5.10.65', 366),
  nvidiaWheel('nccl', '2.32.3', 352),
  nvidiaWheel('nvjitlink', '12.9.86', 40),
];

/** The wheels that make a runtime, TensorFlow's own first; `arch` as Node says it. */
export function wheelsFor(variant: Variant, arch: string): readonly Wheel[] {
  if (variant === 'cuda') return [tensorflowWheel('tensorflow', 572), ...NVIDIA_WHEELS];
  // The index has no tensorflow-cpu for arm64: its plain tensorflow is that build.
  return [arch === 'arm64' ? tensorflowWheel('tensorflow', 282) : tensorflowWheel('tensorflow-cpu', 274)];
}

/** Tags of the wheels for `arch`: the shared libraries are the same in the wheels of every Python version. */
export function wheelTags(arch: string): WheelTags {
  const machine = arch === 'arm64' ? 'aarch64' : 'x86_64';
  // pip takes each tag literally: the older ones are needed for NVIDIA's wheels.
  const platforms = ['manylinux_2_27', 'manylinux_2_25', 'manylinux_2_17', 'manylinux2014'].map(
    (tag) => `${tag}_${machine}`,
  );
  return {pythonVersion: '3.11', abi: 'cp311', platforms};
}

/** A sentence if `version` lies outside the tested range, else null. */
export function versionWarning(version: string | null): string | null {
  const {from, below} = TESTED_VERSIONS;
  if (version === null)
    return `The version of this TensorFlow is unknown; tested is ${from} up to, not including, ${below}.`;
  if (isTestedVersion(version)) return null;
  return `TensorFlow ${version} is untested; tested is ${from} up to, not including, ${below}.`;
}

/** Whether the suite is known to pass on `version`; a pre-release of the first tested version is not. */
export function isTestedVersion(version: string): boolean {
  const {from, below} = TESTED_VERSIONS;
  if (!/^\d+\.\d+\.\d+(\+.*)?$/.test(version)) return false;
  return compareVersions(version, from) >= 0 && compareVersions(version, below) < 0;
}

/** Negative, zero or positive as `a` is older than, equal to or newer than `b`; numbers only, suffixes do not count. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [numbers(a), numbers(b)];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function numbers(version: string): number[] {
  return (/^[\d.]*/.exec(version)?.[0] ?? '').split('.').map(Number);
}

function tensorflowWheel(name: string, megabytes: number): Wheel {
  return {name, version: TENSORFLOW_VERSION, megabytes, needed: TENSORFLOW_FILES};
}

function nvidiaWheel(part: string, version: string, megabytes: number): Wheel {
  return {name: `nvidia-${part}-cu12`, version, megabytes, needed: NVIDIA_FILES};
}
