import type {Role} from '../model/parameters.js';

/** Parts of a model as a person names them when choosing what trains. */
export const PARTS = ['attention', 'ffn', 'shared', 'experts', 'routers', 'norms', 'embeddings', 'scales'] as const;

/** One of {@link PARTS}. */
export type Part = (typeof PARTS)[number];

const PART_OF: Readonly<Record<Role, Part>> = {
  embedding: 'embeddings',
  norm: 'norms',
  attention: 'attention',
  'attention-bias': 'attention',
  ffn: 'ffn',
  router: 'routers',
  bias: 'routers',
  scale: 'scales',
  shared: 'shared',
  expert: 'experts',
  'expert-bias': 'experts',
};

/** The part that a parameter belongs to. */
export function partOf({role}: {readonly role: Role}): Part {
  return PART_OF[role];
}

/** Whether a parameter is a matrix, or a stack of them: what decays, and what can have a low-rank term. */
export function isMatrix({role}: {readonly role: Role}): boolean {
  return role !== 'norm' && role !== 'bias' && role !== 'scale' && role !== 'attention-bias' && role !== 'expert-bias';
}
