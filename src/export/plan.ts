// What it takes to say a mixture in the words of a family that transformers knows.
import type {FloatDtype} from '../format/dtype.js';
import type {Architecture, MixtureFamily} from '../model/architecture.js';
import type {Draft} from './draft.js';
import type {TargetName} from './names.js';

/** What is measured of the logits of chosen experts before a rewriting, and how large it may be afterwards. */
export interface RouterMeasure {
  /** How far the largest is from their mean, or how far any is from zero. */
  readonly of: 'differences' | 'magnitudes';
  readonly most: number;
}

/** One rewriting of a model. */
export interface Trick {
  /** What it does, in one sentence without a full stop. */
  readonly says: string;
  /**
   * `rounded` where numbers are multiplied with what 16 bits cannot carry; `approximate` where what the model computes
   * changes, by however little.
   */
  readonly fidelity: 'exact' | 'rounded' | 'approximate';
  /** Whether it needs the factors of {@link routerFactors}, and which. */
  readonly measures?: RouterMeasure;
  /** Whether routers become smaller than float16 holds, to which transformers rounds them in such a model. */
  readonly isTiny?: true;
  /** @param factors what routers are multiplied with, one number a layer; there if it measures. */
  readonly apply: (draft: Draft, factors: readonly number[]) => Draft;
}

/** How a mixture becomes one of a family. */
export interface ExportPlan {
  readonly kind: 'plan';
  readonly target: MixtureFamily;
  readonly tricks: readonly Trick[];
  readonly fidelity: Trick['fidelity'];
  /** Why the result computes something else, if only a little: what `it` does; null if it does not. */
  readonly approximation: string | null;
}

/** Why a mixture cannot be said in the words of a family. */
export interface Refusal {
  readonly kind: 'refusal';
  readonly target: TargetName;
  readonly why: string;
  /** What would make it possible. */
  readonly remedy: string | null;
  /** Families that have what it lacks, whether or not they have the rest. */
  readonly instead: readonly MixtureFamily[];
  /** Whether attention is what the family computes, so that it is experts that do not fit. */
  readonly hasAttention: boolean;
}

/** A reason why not, and what would help: something to do, or families that have what this one lacks. */
export class Inexpressible extends Error {
  constructor(
    message: string,
    readonly help: string | readonly MixtureFamily[] = [],
  ) {
    super(message);
  }
}

/** A family to export to. */
export interface Target {
  readonly family: MixtureFamily;
  /** The rewritings of attention. @throws Inexpressible if the family computes something else. */
  readonly attention: (architecture: Architecture) => Trick[];
  /** The rewritings that bring experts into its form. @throws Inexpressible if there are none. */
  readonly experts: (architecture: Architecture) => Trick[];
}

/** What numbers are stored in. */
export interface Storage {
  readonly dtype: FloatDtype;
  /** Whether that rounds numbers of the source. */
  readonly isNarrower: boolean;
}

/** How a mixture becomes one of `target`'s family, if it can. */
export function planFor(target: Target, architecture: Architecture, storage: Storage): ExportPlan | Refusal {
  const {family} = target;
  let hasAttention = false;
  try {
    const attention = target.attention(architecture);
    hasAttention = true;
    const tricks = [...attention, ...target.experts(architecture)];
    refuseTiny(tricks, storage);
    return {kind: 'plan', target: family, tricks, ...fidelityOf(tricks, storage)};
  } catch (error) {
    if (!(error instanceof Inexpressible)) throw error;
    const {message: why, help} = error;
    const said = typeof help === 'string' ? {remedy: help, instead: []} : {remedy: null, instead: help};
    return {kind: 'refusal', target: family, why, ...said, hasAttention};
  }
}

function refuseTiny(tricks: readonly Trick[], {dtype}: Storage): void {
  if (dtype !== 'F16' || !tricks.some(({isTiny}) => isTiny)) return;
  throw new Inexpressible('its routers would be smaller than float16 holds', 'Say --dtype bfloat16 or float32.');
}

function fidelityOf(
  tricks: readonly Trick[],
  {dtype, isNarrower}: Storage,
): Pick<ExportPlan, 'fidelity' | 'approximation'> {
  const close = tricks.find(({fidelity}) => fidelity === 'approximate');
  if (close) return {fidelity: 'approximate', approximation: close.says};
  if (isNarrower) return {fidelity: 'rounded', approximation: `rounds the numbers of its source to ${dtype}`};
  const rounded = tricks.find(({fidelity}) => fidelity === 'rounded');
  if (!rounded || dtype === 'F32' || dtype === 'F64') return {fidelity: 'exact', approximation: null};
  return {fidelity: 'rounded', approximation: `${rounded.says}, which ${dtype} rounds`};
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
