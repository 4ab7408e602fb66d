import {type Architecture, type MoeLayout, moeLayouts} from '../../model/architecture.js';
import {padBlocks} from '../blocks.js';
import {type Draft, moeAt, type Reader, redraft} from '../draft.js';
import type {Trick} from '../plan.js';

/** Widths of feed-forward parts that a family wants alike in all layers. */
interface Widths {
  readonly expert: number;
  /** Null to leave it as it is. */
  readonly shared: number | null;
  /** Of layers without experts. */
  readonly dense: number;
}

/** The widths of the widest layers. */
export function widestOf(architecture: Architecture): Widths & {readonly shared: number} {
  const layouts = moeLayouts(architecture);
  const dense = architecture.ffn.map((layout) => (layout.kind === 'dense' ? layout.width : 0));
  return {
    expert: Math.max(0, ...layouts.map(({expertWidth}) => expertWidth)),
    shared: Math.max(0, ...layouts.map(({sharedWidth}) => sharedWidth)),
    dense: Math.max(0, ...dense),
  };
}

/** Makes feed-forward parts as wide as said with neurons of zeros, which add nothing; none if they are. */
export function padWidths(architecture: Architecture, widths: Widths): Trick[] {
  const padded = paddedArchitecture(architecture, widths);
  const narrow = padded.ffn.filter((layout, l) => JSON.stringify(layout) !== JSON.stringify(architecture.ffn[l]));
  if (narrow.length === 0) return [];
  return [
    {
      says: `pads ${narrow.length} of ${padded.ffn.length} layers with neurons of zeros`,
      fidelity: 'exact',
      apply: (draft) => redraft(draft, paddedArchitecture(draft.architecture, widths), readers(draft, widths)),
    },
  ];
}

function paddedArchitecture(architecture: Architecture, {expert, shared, dense}: Widths): Architecture {
  const moe = (layout: MoeLayout): MoeLayout => ({
    ...layout,
    expertWidth: expert,
    sharedWidth: shared ?? layout.sharedWidth,
  });
  return {
    ...architecture,
    ffn: architecture.ffn.map((layout) => (layout.kind === 'moe' ? moe(layout) : {...layout, width: dense})),
  };
}

type Part = 'experts' | 'shared' | 'dense';

function readers({architecture}: Draft, {expert, shared, dense}: Widths): Record<string, Reader> {
  const {width: D} = architecture;
  const widthOf = (part: Part, layer: number): number => {
    const layout = architecture.ffn[layer];
    if (layout?.kind === 'dense') return layout.width;
    const {expertWidth, sharedWidth} = moeAt(architecture, layer);
    return part === 'experts' ? expertWidth : sharedWidth;
  };
  const into =
    (part: Part, name: string, to: number): Reader =>
    async (before, layer) => {
      const from = widthOf(part, layer);
      if (from === 0) return new Float32Array(D * to);
      return padBlocks(await before(name), [D, from], [D, to]);
    };
  const outOf =
    (part: Part, name: string, to: number): Reader =>
    async (before, layer) => {
      const from = widthOf(part, layer);
      if (from === 0) return new Float32Array(to * D);
      return padBlocks(await before(name), [from, D], [to, D]);
    };
  const glu = (part: Part, path: string, to: number): Record<string, Reader> => ({
    [`${path}.gate`]: into(part, `${path}.gate`, to),
    [`${path}.up`]: into(part, `${path}.up`, to),
    [`${path}.down`]: outOf(part, `${path}.down`, to),
  });
  const ofShared = shared === null ? {} : glu('shared', 'ffn.shared', shared);
  return {...glu('experts', 'ffn.experts', expert), ...ofShared, ...glu('dense', 'ffn', dense)};
}
