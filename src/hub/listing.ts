// What a model on the hub is made of, and which of its files are needed.
import {z} from 'zod';
import {EnvironmentError, ModelError} from '../util/errors.js';
import {isGgufPath, type Repo} from './repo.js';
import {get} from './request.js';
import {retried} from './retry.js';
import {type Hub, hostOf} from './settings.js';

/** A file of a model on the hub. */
export interface ListedFile {
  readonly name: string;
  readonly size: number;
  /** SHA-256 of a large file, of any other the SHA-1 by which git knows it; names its blob in the cache. */
  readonly hash: string;
}

/** Pages of a listing are of a thousand files; no model has more at its top. */
const MOST_PAGES = 20;

const HASH = /^([0-9a-f]{40}|[0-9a-f]{64})$/;
const revisionSchema = z.object({sha: z.string().regex(/^[0-9a-f]{40}$/)});
const treeSchema = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    oid: z.string().regex(HASH),
    size: z.number().int().min(0),
    lfs: z.object({oid: z.string().regex(HASH), size: z.number().int().min(0)}).optional(),
  }),
);

/** The commit that a branch or tag is now. */
export async function askCommit(hub: Hub, repo: Repo): Promise<string> {
  const address = `${hub.endpoint}/api/models/${repo.id}/revision/${encodeURIComponent(repo.revision)}`;
  return (await askJson(hub, repo, address, revisionSchema)).value.sha;
}

/**
 * The files at the top of a model's tree; those in folders are other forms of it, which nothing here reads.
 *
 * @throws ModelError if a name would lead out of the folder that it is written to.
 */
export async function listFiles(hub: Hub, {id}: Repo, commit: string): Promise<ListedFile[]> {
  const files: ListedFile[] = [];
  let address: string | null = `${hub.endpoint}/api/models/${id}/tree/${commit}`;
  for (let page = 0; address !== null && page < MOST_PAGES; page++) {
    const {value, next}: Answer<z.output<typeof treeSchema>> = await askJson(
      hub,
      {id, revision: commit},
      address,
      treeSchema,
    );
    for (const {type, path, oid, size, lfs} of value) {
      if (type !== 'file') continue;
      requirePlain(path, id);
      files.push({name: path, size: lfs?.size ?? size, hash: lfs?.oid ?? oid});
    }
    address = next;
  }
  return files;
}

interface Answer<T> {
  readonly value: T;
  /** Address of the next page. */
  readonly next: string | null;
}

function askJson<T>(hub: Hub, repo: Repo, address: string, schema: z.ZodType<T>): Promise<Answer<T>> {
  return retried(hub, async () => {
    const response = await get(hub, repo, address);
    const next = /<([^>]+)>\s*;\s*rel="next"/.exec(response.headers.get('link') ?? '')?.[1] ?? null;
    const parsed = schema.safeParse(await response.json().catch(() => null));
    if (parsed.success) return {value: parsed.data, next};
    throw new EnvironmentError(`${repo.id}: what ${hostOf(hub.endpoint)} answers is not what a hub says.`, {
      hint: 'Check HF_ENDPOINT, or whether a proxy stands in between.',
    });
  });
}

function requirePlain(name: string, id: string): void {
  if (/^[^/\\\0]+$/.test(name) && name !== '.' && name !== '..') return;
  throw new ModelError(`${id}: it has a file called ${JSON.stringify(name)}, which would lie outside of its folder.`, {
    hint: 'Nothing was downloaded; tell the hub of this model.',
  });
}

const NEEDED = /\.(json|jinja)$|^(tokenizer\.model|merges\.txt|vocab\.txt|neurons\.st|README\.md)$|^LICEN[CS]E/i;
/** Not the model as transformers reads it: the same weights by their maker's names, or low-rank terms. */
const OTHER_WEIGHTS = /^(consolidated|adapter_)/;
const SINGLE = 'model.safetensors';

/**
 * The files that a model is read from, weights last: while they are there, all is.
 *
 * @throws ModelError if there is no config, or no safetensors.
 */
export function neededFiles(files: readonly ListedFile[], id: string): ListedFile[] {
  const all = files.filter(({name}) => name.endsWith('.safetensors') && !OTHER_WEIGHTS.test(name));
  const single = all.find(({name}) => name === SINGLE);
  const weights = single ? [single] : all;
  if (weights.length === 0) throw noWeights(files, id);
  if (!files.some(({name}) => name === 'config.json')) {
    throw new ModelError(`${id}: it has no config.json.`, {hint: 'Name a model in the form that transformers reads.'});
  }
  return [...files.filter(({name}) => NEEDED.test(name)), ...weights];
}

function noWeights(files: readonly ListedFile[], id: string): ModelError {
  const gguf = files.find(({name}) => isGgufPath(name));
  if (gguf) {
    return new ModelError(`${id}: it has no weights in safetensors, only GGUF (${gguf.name}).`, {
      hint: 'Download one of its GGUF files, and give its path.',
    });
  }
  const pickled = files.find(({name}) => /\.(bin|pt|pth|ckpt)$/.test(name));
  if (!pickled) {
    return new ModelError(`${id}: it has no weights in safetensors.`, {hint: 'Name a model that has them.'});
  }
  return new ModelError(
    `${id}: its weights are pickled (${pickled.name}), and to read those is to run code that somebody put there.`,
    {hint: 'Name a model or a revision with safetensors; many pickled ones have them at revision refs/pr/1.'},
  );
}
