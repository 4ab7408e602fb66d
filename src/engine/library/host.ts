import {existsSync} from 'node:fs';
import {compareVersions, OLDEST_GLIBC, type Variant} from './versions.js';

/** What of this machine decides whether TensorFlow's wheels run on it. */
export interface Host {
  /** As `process.platform` says it. */
  readonly platform: string;
  /** As `process.arch` says it. */
  readonly arch: string;
  /** Version of the GNU C library; null where there is another one (musl). */
  readonly glibc: string | null;
}

/** The machine this process runs on. */
export function thisHost(): Host {
  return {platform: process.platform, arch: process.arch, glibc: process.platform === 'linux' ? glibcVersion() : null};
}

/** Why `variant` cannot run on `host`, in one sentence; null if it can. */
export function unsupportedReason(host: Host, variant: Variant): string | null {
  const {platform, arch, glibc} = host;
  if (platform !== 'linux') return `TensorFlow's C++ library is published for Linux only; this is ${platform}.`;
  if (arch !== 'x64' && arch !== 'arm64') return `TensorFlow is published for x64 and arm64; this machine is ${arch}.`;
  if (glibc === null) return 'TensorFlow needs the GNU C library; this Linux has another one (musl).';
  if (compareVersions(glibc, OLDEST_GLIBC) < 0)
    return `TensorFlow needs glibc ${OLDEST_GLIBC}; this machine has ${glibc}.`;
  if (variant === 'cuda' && arch !== 'x64')
    return `TensorFlow with CUDA is published for x64 only; this machine is ${arch}.`;
  return null;
}

/** Whether an NVIDIA driver has made its device files; a look at the disk, no driver call. */
export function hasNvidiaDriver(): boolean {
  return existsSync('/dev/nvidiactl') || existsSync('/dev/dxg');
}

function glibcVersion(): string | null {
  const report: unknown = process.report.getReport();
  const header = typeof report === 'object' && report !== null && 'header' in report ? report.header : null;
  const found = typeof header === 'object' && header !== null && 'glibcVersionRuntime' in header;
  return found && typeof header.glibcVersionRuntime === 'string' ? header.glibcVersionRuntime : null;
}
