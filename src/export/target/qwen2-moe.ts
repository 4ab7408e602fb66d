import {attentionTricks} from '../attention.js';
import type {Target} from '../plan.js';
import {softmaxTricks} from './softmax.js';

/** Llama and Qwen2 attention; softmax weights as they are or over their sum, and a shared expert behind a gate. */
export const QWEN2_MOE_TARGET: Target = {
  family: 'qwen2_moe',
  attention: (architecture) =>
    attentionTricks(architecture, {
      norm: {kind: 'rms', placement: 'before'},
      qkNorm: ['none'],
      attentionBias: ['qkv'],
    }),
  experts: (architecture) => softmaxTricks(architecture, {shared: 'gated', denseLayers: true, plainSoftmax: true}),
};
