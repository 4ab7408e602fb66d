import type {Architecture} from '../../model/architecture.js';
import type {Trick} from '../plan.js';

/** Gives a model whose head is its embedding one of its own, a copy of it; none if it has one. */
export function untie({tied}: Architecture): Trick[] {
  if (!tied) return [];
  return [
    {
      says: 'gives it a head of its own, which is a copy of the embedding',
      fidelity: 'exact',
      apply: ({architecture, read}) => ({
        architecture: {...architecture, tied: false},
        read: (path) => read(path === 'head' ? 'embed' : path),
      }),
    },
  ];
}
