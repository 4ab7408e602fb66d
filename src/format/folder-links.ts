import {readdir, realpath} from 'node:fs/promises';
import {join, relative, sep} from 'node:path';
import {ModelError} from '../util/errors.js';

/** The files that are read of a model, by their endings. */
const OF_A_MODEL = /\.(json|safetensors|st|jinja|txt|model)$/;

/** A snapshot in a cache of Hugging Face, or a folder in one; what is kept of the same model. */
const CACHED = /^(.*\/models--[^/]+)\/snapshots\/[^/]+(?:\/|$)/;

/**
 * Refuses a model folder with a file that is a link out of it: what another process or person keeps there would be read, and with
 * the tokenizer's files copied into what is made of the model. In a cache of Hugging Face links lead to the blobs of the same model.
 *
 * @throws ModelError naming the link and where it leads.
 */
export async function refuseLinksOut(folder: string): Promise<void> {
  const home = await realpath(folder).catch(() => folder);
  const root = CACHED.exec(home)?.[1] ?? home;
  const entries = await readdir(home, {withFileTypes: true}).catch(() => []); // whoever reads it says that there is no folder
  for (const entry of entries) {
    if (!entry.isSymbolicLink() || !OF_A_MODEL.test(entry.name)) continue;
    const target = await realpath(join(home, entry.name)).catch(() => null);
    if (target === null || isWithin(target, root)) continue; // whoever reads it says that it leads nowhere
    throw new ModelError(`${join(folder, entry.name)} is a link that leads out of the folder, to ${target}.`, {
      hint: 'Copy the file into the folder, or give the folder that it lies in.',
    });
  }
}

function isWithin(path: string, folder: string): boolean {
  const [first] = relative(folder, path).split(sep);
  return first !== '..' && first !== '';
}
