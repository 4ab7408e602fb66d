import type {Architecture, Dialect} from '../../model/architecture.js';
import {type Reader, redraft} from '../draft.js';
import {Inexpressible, type Trick} from '../plan.js';

type BiasWord = Dialect['attentionBias'];

/** Gives projections of attention biases of zeros where a family has biases; none if the model has them. */
export function zeroBiases(architecture: Architecture, words: readonly BiasWord[]): Trick[] {
  const {attentionBias} = architecture;
  if (words.includes(attentionBias)) return [];
  const wider = words.find((word) => holds(word, attentionBias));
  if (!wider) {
    throw new Inexpressible(`projections of attention have biases (${attentionBias}) that the family has no place for`);
  }
  return [
    {
      says: `gives the ${wider === 'qkv' ? 'queries, keys and values' : 'projections of attention'} biases of zeros`,
      fidelity: 'exact',
      apply: (draft) => redraft(draft, {...draft.architecture, attentionBias: wider}, readers(draft.architecture)),
    },
  ];
}

function holds(wide: BiasWord, narrow: BiasWord): boolean {
  const order = ['none', 'qkv', 'qkvo'];
  return order.indexOf(wide) > order.indexOf(narrow);
}

function readers({attentionBias, heads, kvHeads, headDim, width}: Architecture): Record<string, Reader> {
  const zeros =
    (size: number): Reader =>
    () =>
      Promise.resolve(new Float32Array(size));
  const output = {'attention.oBias': zeros(width)};
  if (attentionBias === 'qkv') return output;
  const [queries, keys] = [zeros(heads * headDim), zeros(kvHeads * headDim)];
  return {...output, 'attention.qBias': queries, 'attention.kBias': keys, 'attention.vBias': keys};
}
