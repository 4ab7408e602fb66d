import {createHash} from 'node:crypto';
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from './architecture.js';

/**
 * SHA-256 that tells one model from another, in hex: architecture, and of each tensor name, dtype, shape, first and last row.
 *
 * Reads a few rows, not the model; training moves every row, so two checkpoints of a run differ. No proof against forgery.
 */
export async function modelFingerprint(
  {tensors}: Pick<ModelFolder, 'tensors'>,
  architecture: Architecture,
): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(architecture));
  for (const name of tensors.names.toSorted()) {
    const {dtype, shape} = tensors.info(name);
    hash.update(`${name} ${dtype} ${shape.join(',')}`);
    const rows = shape[0] ?? 0;
    if (rows === 0) continue;
    hash.update(await tensors.readRows(name, 0, 1)).update(await tensors.readRows(name, rows - 1, rows));
  }
  return hash.digest('hex');
}
