import {attentionTricks} from '../attention.js';
import type {Target} from '../plan.js';
import {softmaxTricks} from './softmax.js';

/** Qwen3 attention; softmax weights as they are or over their sum, no shared expert. */
export const QWEN3_MOE_TARGET: Target = {
  family: 'qwen3_moe',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['head'],
      attentionBias: ['none', 'qkvo'],
    }),
  experts: (architecture) => softmaxTricks(architecture, {shared: 'folded', denseLayers: true, plainSoftmax: true}),
};
