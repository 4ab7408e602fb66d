import {attentionTricks} from '../attention.js';
import type {Target} from '../plan.js';
import {softmaxTricks} from './softmax.js';

/** OLMo 2 attention; softmax weights as they are or over their sum, no shared expert. */
export const FLEX_OLMO_TARGET: Target = {
  family: 'flex_olmo',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'after'},
      qkNorm: ['width'],
      attentionBias: ['none', 'qkvo'],
    }),
  experts: (architecture) => softmaxTricks(architecture, {shared: 'folded', denseLayers: false, plainSoftmax: true}),
};
