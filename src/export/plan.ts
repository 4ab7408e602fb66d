// What it takes to say a mixture in the words of a family that transformers knows.
import type {FloatDtype} from '../format/dtype.js';
import type {Architecture, MixtureFamily} from '../model/architecture.js';
import type {Draft} from './draft.js';
import type {TargetName} from './names.js';

/** One rewriting of a model. */
export interface Trick {
  /** What it does, in one sentence without a full stop. */
  readonly says: string;
  /**
   * `rounded` where numbers are multiplied with what 16 bits cannot carry; `approximate` where what the model computes
   * changes, by however little.
   */
  readonly fidelity: 'exact' | 'rounded' | 'approximate';
  /** Whether it needs the factors of {@link routerFactors}. */
  readonly measures?: 'differences' | 'magnitudes';
  /** @param factors what routers are multiplied with, one number a layer; there if it measures. */
  readonly apply: (draft: Draft, factors: readonly number[]) => Draft;
}

/** How a mixture becomes one of a family. */
export interface ExportPlan {
  readonly kind: 'plan';
  readonly target: MixtureFamily;
  readonly tricks: readonly Trick[];
  /** Why the result computes something else, if only a little; null if it does not. */
  readonly approximation: string | null;
}

/** Why a mixture cannot be said in the words of a family. */
export interface Refusal {
  readonly kind: 'refusal';
  readonly target: TargetName;
  readonly why: string;
  /** What would make it possible. */
  readonly remedy: string | null;
}

/** A reason why not, and what would help. */
export class Inexpressible extends Error {
  constructor(
    message: string,
    readonly remedy: string | null = null,
  ) {
    super(message);
  }
}

/** A family to export to. */
export interface Target {
  readonly family: MixtureFamily;
  /** The rewritings that bring a mixture into its form. @throws Inexpressible if there are none. */
  readonly tricksFor: (architecture: Architecture) => Trick[];
}

/** How a mixture becomes one of `target`'s family, if it can, with numbers stored as `dtype`. */
export function planFor(target: Target, architecture: Architecture, dtype: FloatDtype): ExportPlan | Refusal {
  const {family} = target;
  try {
    const tricks = target.tricksFor(architecture);
    return {kind: 'plan', target: family, tricks, approximation: approximationOf(tricks, dtype)};
  } catch (error) {
    if (!(error instanceof Inexpressible)) throw error;
    return {kind: 'refusal', target: family, why: error.message, remedy: error.remedy};
  }
}

function approximationOf(tricks: readonly Trick[], dtype: FloatDtype): string | null {
  const close = tricks.find(({fidelity}) => fidelity === 'approximate');
  if (close) return close.says;
  const rounded = tricks.find(({fidelity}) => fidelity === 'rounded');
  if (!rounded || dtype === 'F32' || dtype === 'F64') return null;
  return `${rounded.says}, which ${dtype} rounds (--dtype float32 does not)`;
}

/** The architecture that some rewritings make of one. */
export function architectureAfter(architecture: Architecture, tricks: readonly Trick[]): Architecture {
  const unread = (): never => {
    throw new Error('a plan reads no weights');
  };
  return applyTricks({architecture, read: unread}, tricks, []).architecture;
}

/** A draft after some rewritings. @param factors what routers are multiplied with, a number a layer. */
export function applyTricks(draft: Draft, tricks: readonly Trick[], factors: readonly number[]): Draft {
  return tricks.reduce((before, trick) => trick.apply(before, factors), draft);
}
