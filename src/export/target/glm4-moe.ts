import {type Architecture, moeLayouts} from '../../model/architecture.js';
import {attentionTricks} from '../attention.js';
import {architectureAfter, Inexpressible, type Target, type Trick} from '../plan.js';
import {chooseAlways, zeroSelectionBias} from '../trick/always-chosen.js';
import {evenSigmoids, reword} from '../trick/weights.js';
import {padWidths, widestOf} from '../trick/widths.js';
import {refuseSelectionBias, refuseSharedGate} from '../uniform.js';
import {weighingOf} from '../weighing.js';

/** Llama, Qwen2 and Qwen3 attention; sigmoid scores with selection biases, which say layers that differ, and shared experts. */
export const GLM4_MOE_TARGET: Target = {
  family: 'glm4_moe',
  tricksFor: (architecture) => [
    ...attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['none', 'head'],
      attentionBias: ['none', 'qkv'],
    }),
    ...expertTricks(architecture),
  ],
};

const ONE_OF_SCORES = {score: 'sigmoid', order: 'score-then-topk', renormalise: true, weight: 'score'} as const;

function expertTricks(architecture: Architecture): Trick[] {
  refuseDenseAfterExperts(architecture);
  const weighing = weighingOf(architecture);
  refuseSharedGate(architecture);
  switch (weighing) {
    case 'softmax':
      throw new Inexpressible('experts are weighed by softmax scores', 'Choose qwen2_moe, qwen3_moe or flex_olmo.');
    case 'shares':
      // of one chosen expert alone the share is one, whatever its score
      if (moeLayouts(architecture).some(({topK}) => topK > 1)) {
        throw new Inexpressible(
          'experts are weighed by softmax scores',
          'Choose qwen2_moe, mixtral or granitemoeshared.',
        );
      }
      refuseSelectionBias(architecture);
      return alike(architecture, reword(architecture.routing, ONE_OF_SCORES));
    case 'ones':
      if (architecture.routing.order === 'score-then-topk') refuseSelectionBias(architecture);
      return alike(architecture, [evenSigmoids()]);
    case 'sigmoid':
    case 'sigmoid-shares':
      return alike(architecture, sigmoidWords(architecture));
  }
}

/** The family adds its biases to scores; without biases the choice by logits is the same. */
function sigmoidWords(architecture: Architecture): Trick[] {
  if (architecture.routing.order === 'topk-then-score') refuseSelectionBias(architecture);
  return reword(architecture.routing, {order: 'score-then-topk'});
}

/** Makes layers alike: by padding alone where they have the same numbers of experts, else by a selection bias. */
function alike(architecture: Architecture, weights: readonly Trick[]): Trick[] {
  const layouts = moeLayouts(architecture);
  const widest = widestOf(architecture);
  const counts = new Set(layouts.map(({experts, topK}) => `${topK} of ${experts}`));
  if (counts.size === 1) {
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
