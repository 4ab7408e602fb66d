import {basename, resolve} from 'node:path';

/** What a model is called where others read it: its name on the hub, if it lies in the hub's cache, else that of its folder. */
export function publicName(path: string): string {
  const [, owner, name] = /models--(.+?)--([^/]+)\/snapshots\//.exec(`${resolve(path)}/`) ?? [];
  return owner !== undefined && name !== undefined ? `${owner}/${name}` : basename(resolve(path));
}
