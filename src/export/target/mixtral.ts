import {attentionTricks} from '../attention.js';
import type {Target} from '../plan.js';
import {softmaxTricks} from './softmax.js';

/** Llama and Mistral attention; weights that sum to one, no shared expert. */
export const MIXTRAL_TARGET: Target = {
  family: 'mixtral',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['none'],
      attentionBias: ['none'],
      windows: true,
    }),
  experts: (architecture) => softmaxTricks(architecture, {shared: 'folded', denseLayers: false, plainSoftmax: false}),
};
