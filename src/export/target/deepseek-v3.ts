import type {Refusal} from '../plan.js';

/** The family that no model here can be one of. */
export const DEEPSEEK_V3: Refusal = {
  kind: 'refusal',
  target: 'deepseek_v3',
  why: 'its attention presses keys and values through a norm and rotates one key for all heads, which none of our families computes',
  remedy: 'glm4_moe has the same routers, with plain attention.',
  instead: [],
  hasAttention: false,
};
