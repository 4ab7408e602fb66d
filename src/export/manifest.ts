// export.json: what was done to a model so that others can run it, and how far it is from its source.
import type {FloatDtype} from '../format/dtype.js';
import type {MixtureFamily} from '../model/architecture.js';
import {packageVersion} from '../util/version.js';
import type {Fidelity} from './fidelity.js';

/** The file in an exported folder that holds its {@link Manifest}. */
export const MANIFEST_FILE = 'export.json';

/** The record of an export. */
export interface Manifest {
  readonly format: 1;
  readonly versions: {readonly downcycle: string; readonly node: string};
  readonly target: MixtureFamily;
  readonly dtype: FloatDtype;
  readonly source: {
    /** Name of the folder. */
    readonly name: string;
    readonly modelType: string;
    readonly fingerprint: string;
    readonly revision: string | null;
  };
  /** The command that made it, without the folders that things lay in. */
  readonly command: string;
  /** What was rewritten, in order. */
  readonly rewritings: readonly string[];
  /** Whether it computes what its source does, but for rounding of numbers, or nearly. */
  readonly kind: 'exact' | 'rounded' | 'approximate';
  /** Why it computes something else than its source, if only a little; null if it does not. */
  readonly approximation: string | null;
  /** What the router of each layer was multiplied with; null where that was not needed. */
  readonly routerFactors: readonly number[] | null;
  /** Against the source, as downcycle runs both in float32. */
  readonly fidelity: Fidelity & {readonly text: string};
}

/** A manifest without what every one has. */
export type ManifestFields = Omit<Manifest, 'format' | 'versions'>;

/** The text of {@link MANIFEST_FILE}. */
export function renderManifest(fields: ManifestFields): string {
  const manifest: Manifest = {
    format: 1,
    versions: {downcycle: packageVersion(), node: process.version},
    ...fields,
  };
  return `${JSON.stringify(manifest, null, 2)}\n`;
}
