import {createHash} from 'node:crypto';
import {stat} from 'node:fs/promises';
import type {ModelFolder} from '../format/model-folder.js';
import type {TensorStore} from '../format/tensor-store.js';
import type {Architecture} from './architecture.js';

/** Bytes of a tensor that are read at once. */
const CHUNK = 2 ** 24;

/** What this process hashed already: digests of weights, by their names and the files they stand in as they were then. */
const known = new Map<string, string>();

/** Milliseconds within which two writes of a file may get one time from the clock of its system. */
const CLOCK = 2000;

/**
 * SHA-256 that tells one model from another, in hex: its architecture, and name, dtype, shape and bytes of each tensor, in
 * whatever files they stand.
 */
export async function modelFingerprint(
  {tensors}: Pick<ModelFolder, 'tensors'>,
  architecture: Architecture,
): Promise<string> {
  const files = new Set(tensors.names.map((name) => tensors.fileOf(name)));
  const states = await Promise.all([...files].map(stateOf));
  const key = [...tensors.names, ...states.map(({text}) => text)].join('\n');
  const weights = known.get(key) ?? (await weightsDigest(tensors));
  if (states.every(({changedMs}) => changedMs < Date.now() - CLOCK)) known.set(key, weights);
  return createHash('sha256').update(JSON.stringify(architecture)).update(weights).digest('hex');
}

/** A file by what changes when its content does, whatever it is called. */
async function stateOf(path: string): Promise<{readonly text: string; readonly changedMs: number}> {
  const {dev, ino, size, mtimeNs, ctimeNs, ctimeMs} = await stat(path, {bigint: true});
  return {text: [dev, ino, size, mtimeNs, ctimeNs].join(' '), changedMs: Number(ctimeMs)};
}

async function weightsDigest(tensors: TensorStore): Promise<string> {
  const hash = createHash('sha256');
  for (const name of tensors.names.toSorted()) {
    const {dtype, shape, begin, end} = tensors.info(name);
    hash.update(`${name} ${dtype} ${shape.join(',')} `);
    for (let at = 0; at < end - begin; at += CHUNK) {
      hash.update(await tensors.readBytes(name, {begin: at, end: Math.min(at + CHUNK, end - begin)}));
    }
  }
  return hash.digest('hex');
}
