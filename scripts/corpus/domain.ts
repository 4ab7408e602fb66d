import type {Package} from './package.js';

/** One field of text in data/: where it comes from, under which licence, and how documents are taken out of it. */
export interface Domain {
  /** Base name of data/<name>.txt and data/licenses/<name>.txt. */
  readonly name: string;
  /** What a reader of data/README.md wants to know. */
  readonly about: string;
  readonly packages: readonly Package[];
  readonly licence: string;
  /** The licence text, taken from the unpacked packages (one folder a package, in order). */
  notice(folders: readonly string[]): Promise<string>;
  /** Raw documents in source order; cleaning and choice are common to all domains. */
  documents(folders: readonly string[]): Promise<string[]>;
}
