// Names of models on the hub.
import {dirname} from 'node:path';
import {exists} from '../util/exists.js';

/** A model on the hub. */
export interface Repo {
  /** `org/name`, or `name` alone for some old ones. */
  readonly id: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

const ID = /^(?![.-])[\w.-]+(\/(?![.-])[\w.-]+)?$/;
const REVISION = /^[\w.][\w./-]*$/;
const MOST_LETTERS = 96;

/**
 * Reads `org/name@revision`, by the hub's rules for names; null if it is none of those.
 *
 * A name whose first part is a folder here is meant as a path, and so is one that ends as GGUF files do.
 */
export async function readRepo(name: string): Promise<Repo | null> {
  if (isGgufPath(name)) return null;
  const [id = '', revision = 'main', ...more] = name.split('@');
  const isId = ID.test(id) && id.length <= MOST_LETTERS && !/--|\.\.|\.git$|[.-]$/.test(id);
  if (more.length > 0 || !isId || !isRevision(revision)) return null;
  return id.includes('/') && (await exists(dirname(id))) ? null : {id, revision};
}

/** Whether a name ends as GGUF files do. */
export function isGgufPath(name: string): boolean {
  return name.endsWith('.gguf');
}

/** Whether a text can be a branch, tag or commit; it becomes a file name in the cache. */
function isRevision(text: string): boolean {
  return REVISION.test(text) && !text.split('/').some((part) => part === '' || part === '.' || part === '..');
}

/** Whether a revision says by itself which commit it is. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}
