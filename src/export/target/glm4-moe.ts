import {type Architecture, moeLayouts} from '../../model/architecture.js';
import {attentionTricks} from '../attention.js';
import {architectureAfter, Inexpressible, type Target, type Trick} from '../plan.js';
import {chooseAlways, zeroSelectionBias} from '../trick/always-chosen.js';
import {chooseByScores, evenSigmoids, oneBySigmoid} from '../trick/weights.js';
import {padWidths, widestOf} from '../trick/widths.js';
import {refuseSelectionBias, refuseSharedGate} from '../uniform.js';
import {weighingOf} from '../weighing.js';
import {OF_PLAIN_SOFTMAX, OF_SHARES} from './softmax.js';

/** Llama, Qwen2 and Qwen3 attention; sigmoid scores with selection biases, which say layers that differ, and shared experts. */
export const GLM4_MOE_TARGET: Target = {
  family: 'glm4_moe',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['none', 'head'],
      attentionBias: ['none', 'qkv'],
    }),
  experts: expertTricks,
};

function expertTricks(architecture: Architecture): Trick[] {
  refuseDenseAfterExperts(architecture);
  refuseSharedGate(architecture);
  const weighing = weighingOf(architecture);
  const layouts = moeLayouts(architecture);
  const isOne = layouts.every(({topK}) => topK === 1); // whose share is one, whatever its score
  switch (weighing) {
    case 'softmax':
      throw new Inexpressible('experts are weighed by softmax scores', OF_PLAIN_SOFTMAX);
    case 'shares':
      if (!isOne) throw new Inexpressible('experts are weighed by softmax scores', OF_SHARES);
      return alike(architecture, weightsOfOne(architecture));
    case 'ones':
      return alike(architecture, weightsOfOne(architecture));
    case 'sigmoid':
    case 'sigmoid-shares':
      if (architecture.routing.order === 'topk-then-score') refuseSelectionBias(architecture); // it is added to logits
      return alike(architecture, chooseByScores(architecture.routing));
  }
}

/** One expert alone is exact, unless a bias has a say in the choice, or layers are made alike by one. */
function weightsOfOne(architecture: Architecture): Trick[] {
  const layouts = moeLayouts(architecture);
  const hasBias = layouts.some(({selectionBias}) => selectionBias);
  if (hasBias && architecture.routing.order === 'score-then-topk') refuseSelectionBias(architecture); // it is added to scores
  const isOne = layouts.every(({topK}) => topK === 1);
  return [isOne && !hasBias && hasSameCounts(architecture) ? oneBySigmoid() : evenSigmoids()];
}

function hasSameCounts(architecture: Architecture): boolean {
  return new Set(moeLayouts(architecture).map(({experts, topK}) => `${topK} of ${experts}`)).size === 1;
}

/** Makes layers alike: by padding alone where they have the same numbers of experts, else by a selection bias. */
function alike(architecture: Architecture, weights: readonly Trick[]): Trick[] {
  const layouts = moeLayouts(architecture);
  const widest = widestOf(architecture);
  if (hasSameCounts(architecture)) {
    const shared = Math.max(1, Math.ceil(widest.shared / widest.expert)) * widest.expert;
    const biases = layouts.every(({selectionBias}) => selectionBias) ? [] : [zeroSelectionBias()];
    return [...padWidths(architecture, {...widest, shared}), ...weights, ...biases];
  }
  const before = [...padWidths(architecture, {...widest, shared: null}), ...weights];
  const changed = architectureAfter(architecture, before);
  if (!changed.routing.renormalise) return [...before, chooseAlways(changed)];
  throw new Inexpressible(
    'its layers have different numbers of experts, and weights that sum to one',
    'Convert with --allocate uniform.',
  );
}

function refuseDenseAfterExperts({ffn}: Architecture): void {
  const first = ffn.findIndex(({kind}) => kind === 'moe');
  const layer = ffn.findIndex(({kind}, l) => kind === 'dense' && l > first);
  if (layer < 0) return;
  throw new Inexpressible(
    `layer ${layer} has no experts, and the family has such layers only before those with experts`,
  );
}
