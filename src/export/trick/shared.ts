import {type Architecture, moeLayouts} from '../../model/architecture.js';
import {putBlocks} from '../blocks.js';
import {moeAt, type Reader, redraft, times, withMoe} from '../draft.js';
import type {Trick} from '../plan.js';

/** Gives shared experts without a gate one of zeros, which is a half whatever the token, and down projections twice as large. */
export function halfGate(architecture: Architecture): Trick[] {
  const hasGate = (layer: number): boolean => moeAt(architecture, layer).sharedGate === true;
  if (moeLayouts(architecture).every(({sharedGate}) => sharedGate)) return [];
  return [
    {
      says: 'gives the shared expert a gate that is always a half, and a down projection twice as large',
      fidelity: 'exact',
      apply: (draft) =>
        redraft(
          draft,
          withMoe(draft.architecture, (layout) => ({...layout, sharedGate: true})),
          {
            'ffn.sharedGate': async (before, layer) =>
              hasGate(layer) ? before('ffn.sharedGate') : new Float32Array(architecture.width),
            'ffn.shared.down': async (before, layer) => times(await before('ffn.shared.down'), hasGate(layer) ? 1 : 2),
          },
        ),
    },
  ];
}

/** Puts the shared expert into every routed one: the same sum where their weights sum to one. */
export function foldShared(): Trick {
  return {
    says: 'puts the shared expert into every routed one, whose weights sum to one',
    fidelity: 'exact',
    apply: (draft) =>
      redraft(
        draft,
        withMoe(draft.architecture, (layout) => ({
          ...layout,
          sharedWidth: 0,
          expertWidth: layout.sharedWidth + layout.expertWidth,
        })),
        foldReaders(draft.architecture),
      ),
  };
}

function foldReaders(architecture: Architecture): Record<string, Reader> {
  const {width: D} = architecture;
  const into =
    (name: string): Reader =>
    async (before, layer) => {
      const {experts, expertWidth: f, sharedWidth: s} = moeAt(architecture, layer);
      const target = new Float32Array(experts * D * (s + f));
      putBlocks(target, [D, s + f], await before(`ffn.experts.${name}`), [D, f], {column: s});
      const shared = await before(`ffn.shared.${name}`);
      for (let e = 0; e < experts; e++) putBlocks(target, [D, s + f], shared, [D, s], {matrix: e});
      return target;
    };
  const outOf: Reader = async (before, layer) => {
    const {experts, expertWidth: f, sharedWidth: s} = moeAt(architecture, layer);
    const target = new Float32Array(experts * (s + f) * D);
    putBlocks(target, [s + f, D], await before('ffn.experts.down'), [f, D], {row: s});
    const shared = await before('ffn.shared.down');
    for (let e = 0; e < experts; e++) putBlocks(target, [s + f, D], shared, [s, D], {matrix: e});
    return target;
  };
  return {'ffn.experts.gate': into('gate'), 'ffn.experts.up': into('up'), 'ffn.experts.down': outOf};
}
