import type {Architecture} from '../../model/architecture.js';
import {attentionTricks} from '../attention.js';
import type {Target, Trick} from '../plan.js';
import {Inexpressible} from '../plan.js';
import {evenShares, reword, scaleExperts} from '../trick/weights.js';
import {padWidths, widestOf} from '../trick/widths.js';
import {refuseDense, refuseSelectionBias, refuseSharedGate, uniformLayout} from '../uniform.js';
import {sharesIfOne, weighingOf} from '../weighing.js';
import {OF_PLAIN_SOFTMAX} from './softmax.js';

/** Llama, Qwen2 and Granite attention; softmax over the experts that logits choose, and a shared expert. */
export const GRANITEMOESHARED_TARGET: Target = {
  family: 'granitemoeshared',
  attention: (architecture) => [
    ...attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['none'],
      attentionBias: ['none', 'qkvo'],
      multipliers: true,
    }),
    ...attentionFactor(architecture),
  ],
  experts: expertTricks,
};

function expertTricks(architecture: Architecture): Trick[] {
  refuseDense(architecture);
  const weighing = sharesIfOne(weighingOf(architecture), architecture);
  refuseSharedGate(architecture);
  refuseSelectionBias(architecture);
  const {topK} = uniformLayout(architecture);
  const padding = padWidths(architecture, widestOf(architecture));
  const {routing} = architecture;
  switch (weighing) {
    case 'ones':
      return [...padding, evenShares(topK * routing.scale, true)];
    case 'shares':
      return [
        ...padding,
        ...scaleExperts(routing),
        ...reword(routing, {score: 'softmax', order: 'topk-then-score', renormalise: false, weight: 'score'}),
      ];
    case 'softmax':
      throw new Inexpressible('its weights do not sum to one, and those of the family do', OF_PLAIN_SOFTMAX);
    case 'sigmoid':
    case 'sigmoid-shares':
      throw new Inexpressible('experts are weighed by sigmoid scores', ['glm4_moe']);
  }
}

/** The family has no word for 1/√d but the number. */
function attentionFactor({multipliers, headDim}: Architecture): Trick[] {
  if (multipliers.attention !== null) return [];
  return [
    {
      says: 'says the factor of attention as a number',
      fidelity: 'exact',
      apply: (draft) => ({
        ...draft,
        architecture: {...draft.architecture, multipliers: {...multipliers, attention: headDim ** -0.5}},
      }),
    },
  ];
}
