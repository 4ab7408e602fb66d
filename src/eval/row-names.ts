import {basename, extname} from 'node:path';

/** Names of files in tables: without folder and ending, but whole where another would be called the same, or is in `taken`. */
export function rowNames(paths: readonly string[], taken: readonly string[] = []): string[] {
  const short = paths.map((path) => basename(path, extname(path)));
  const isOwn = (name: string): boolean => !taken.includes(name) && short.indexOf(name) === short.lastIndexOf(name);
  return paths.map((path, i) => (isOwn(short[i] as string) ? (short[i] as string) : path));
}
