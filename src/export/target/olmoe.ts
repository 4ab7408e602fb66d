import {attentionTricks} from '../attention.js';
import type {Target} from '../plan.js';
import {softmaxTricks} from './softmax.js';

/** Norms of all queries and all keys together; softmax weights as they are or over their sum, no shared expert. */
export const OLMOE_TARGET: Target = {
  family: 'olmoe',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['width'],
      attentionBias: ['none', 'qkvo'],
    }),
  experts: (architecture) => softmaxTricks(architecture, {shared: 'folded', denseLayers: false, plainSoftmax: true}),
};
