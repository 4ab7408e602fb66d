// Whether a family computes attention, norms and residuals as a model does.
import type {Architecture, Dialect, MixtureFamily} from '../model/architecture.js';
import {Inexpressible, type Trick} from './plan.js';
import {zeroBiases} from './trick/biases.js';

/** What a family can say beside its experts. */
export interface Attention {
  readonly norm: Dialect['norm'];
  readonly qkNorm: readonly Dialect['qkNorm'][];
  readonly attentionBias: readonly Dialect['attentionBias'][];
  /** Whether it clips queries, keys and values as they are projected; default false. */
  readonly clips?: boolean;
  /** Whether it has windows; default false. */
  readonly windows?: boolean;
  /** Whether it has factors on embeddings, attention, residuals and logits; default false. */
  readonly multipliers?: boolean;
}

/** The rewritings that bring attention into the form of a family. @throws Inexpressible if it computes something else. */
export function attentionTricks(architecture: Architecture, family: Attention): Trick[] {
  const {norm, qkNorm, qkvClip, slidingWindow, multipliers} = architecture;
  if (norm.kind !== family.norm.kind) throw new Inexpressible(...NORMS[norm.kind]);
  if (norm.placement !== family.norm.placement) {
    throw new Inexpressible(
      `its norms come ${norm.placement} attention and feed-forward part, not ${family.norm.placement}`,
      OWN_KIND,
    );
  }
  if (!family.qkNorm.includes(qkNorm)) throw new Inexpressible(QK_NORMS[qkNorm], OWN_KIND);
  if (qkvClip !== null && !family.clips) throw new Inexpressible('its queries, keys and values are clipped', OWN_KIND);
  if (slidingWindow !== null && !family.windows) {
    const remedy = 'If texts are never longer than the window, take sliding_window out of config.json.';
    throw new Inexpressible(`its attention has a window of ${slidingWindow} positions`, remedy);
  }
  const isPlain =
    multipliers.attention === null &&
    [multipliers.embedding, multipliers.residual, multipliers.logitsDivisor].every((factor) => factor === 1);
  if (!isPlain && !family.multipliers)
    throw new Inexpressible('it has factors on embeddings, attention, residuals or logits', OWN_KIND);
  return zeroBiases(architecture, family.attentionBias);
}

const OWN_KIND = 'Choose a target of its own kind of attention.';

/** Why a model with norms of a kind has no place where they are of the other, and what would help. */
const NORMS: Readonly<
  Record<Dialect['norm']['kind'], readonly [why: string, help: string | readonly MixtureFamily[]]>
> = {
  layer: ['its norms take the mean away first and have no weights', ['dbrx']],
  rms: ['its norms divide by the root mean square, and those of the family take the mean away first', OWN_KIND],
};

const QK_NORMS: Readonly<Record<Dialect['qkNorm'], string>> = {
  none: 'the family normalises queries and keys, and the model does not',
  head: 'it normalises queries and keys of each head',
  width: 'it normalises queries and keys of all heads together',
};
