// What families of softmax routers without selection biases have in common.
import type {Architecture} from '../../model/architecture.js';
import {Inexpressible, type Trick} from '../plan.js';
import {foldShared, halfGate} from '../trick/shared.js';
import {evenShares, reword, scaleExperts} from '../trick/weights.js';
import {padWidths, widestOf} from '../trick/widths.js';
import {refuseDense, refuseSelectionBias, refuseSharedGate, uniformLayout} from '../uniform.js';
import {sharesIfOne, weighingOf} from '../weighing.js';

/** Families whose weights can be the softmax over all experts as it is. */
export const OF_PLAIN_SOFTMAX = ['qwen2_moe', 'qwen3_moe', 'olmoe', 'flex_olmo', 'dbrx'] as const;
/** Families whose weights can be softmax shares that sum to one. */
export const OF_SHARES = [...OF_PLAIN_SOFTMAX, 'mixtral', 'granitemoeshared'] as const;

/** What such a family can say. */
interface SoftmaxFamily {
  /** How the shared expert is said: with a gate, or as a part of every routed one. */
  readonly shared: 'gated' | 'folded';
  /** Whether some layers may have no experts. */
  readonly denseLayers: boolean;
  /** Whether weights can be the softmax over all experts as it is. */
  readonly plainSoftmax: boolean;
}

/** Width of a shared expert of zeros, where a family must have one: as narrow as kernels like. */
const NARROW = 16;

/** The rewritings that bring experts into the form of such a family. @throws Inexpressible if there are none. */
export function softmaxTricks(architecture: Architecture, family: SoftmaxFamily): Trick[] {
  if (!family.denseLayers) refuseDense(architecture);
  const weighing = sharesIfOne(weighingOf(architecture), architecture);
  refuseSelectionBias(architecture);
  if (family.shared === 'folded') refuseSharedGate(architecture);
  const {topK} = uniformLayout(architecture);
  const widest = widestOf(architecture);
  const hasShared = widest.shared > 0;
  if (weighing === 'sigmoid' || weighing === 'sigmoid-shares') {
    throw new Inexpressible('experts are weighed by sigmoid scores', ['glm4_moe']);
  }
  if (weighing === 'softmax') refuseSoftmax(family, hasShared);
  const shared = family.shared === 'gated' ? Math.max(widest.shared, hasShared ? 0 : NARROW) : widest.shared;
  const padding = padWidths(architecture, {...widest, shared});
  const weights =
    weighing === 'ones'
      ? [evenShares(topK * architecture.routing.scale, false)]
      : [...scaleExperts(architecture.routing), ...wordsOf(architecture, weighing)];
  const sharing = family.shared === 'gated' ? halfGate(architecture) : hasShared ? [foldShared()] : [];
  return [...padding, ...weights, ...sharing];
}

/** The family takes scores before it chooses, which is the same for weights that are shared out. */
function wordsOf({routing}: Architecture, weighing: 'softmax' | 'shares'): Trick[] {
  const renormalise = weighing === 'shares';
  return reword(routing, {score: 'softmax', order: 'score-then-topk', renormalise, weight: 'score'});
}

function refuseSoftmax({plainSoftmax, shared}: SoftmaxFamily, hasShared: boolean): void {
  if (!plainSoftmax) {
    throw new Inexpressible('its weights do not sum to one, and those of the family do', RENORMALISE);
  }
  if (shared === 'folded' && hasShared) {
    throw new Inexpressible(
      'it has a shared expert, which fits into routed ones only where weights sum to one',
      RENORMALISE,
    );
  }
}

const RENORMALISE =
  'Weights sum to one in upcycled mixtures with renormalise: true; others need qwen2_moe, and its attention, or no shared expert.';
