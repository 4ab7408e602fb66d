// Layers that differ, made alike by a selection bias: it decides which experts are always chosen, and which never.
import {type Architecture, type MoeLayout, moeLayouts} from '../../model/architecture.js';
import {padBlocks, putBlocks} from '../blocks.js';
import {type Draft, moeAt, type Reader, redraft, times, withMoe} from '../draft.js';
import type {Trick} from '../plan.js';
import {roundingOf} from './weights.js';

/** What all layers have in common afterwards. */
interface Common {
  readonly experts: number;
  readonly topK: number;
  /** Shared experts, each as wide as a routed one. */
  readonly shared: number;
}

/** The experts of one layer afterwards, in this order. */
interface Places {
  readonly routed: number;
  /** Parts of the shared expert beyond those that all layers have. */
  readonly parts: number;
  /** Experts of zeros that are always chosen: fewer are routed here than elsewhere. */
  readonly fillers: number;
}

/** Gives routers without a selection bias one of zeros. */
export function zeroSelectionBias(): Trick {
  return {
    says: 'gives routers selection biases of zeros',
    fidelity: 'exact',
    apply: (draft) =>
      redraft(
        draft,
        withMoe(draft.architecture, (layout) => ({...layout, selectionBias: true})),
        {
          'ffn.bias': async (before, layer) => {
            const {selectionBias, experts} = moeAt(draft.architecture, layer);
            return selectionBias ? before('ffn.bias') : new Float32Array(experts);
          },
        },
      ),
  };
}

/**
 * Gives all layers the same numbers of experts, chosen and shared ones. What a layer shares beyond the others becomes routed
 * experts whose selection bias has them chosen always, at the score of a half that a router row of zeros gives; experts of
 * zeros fill up, some chosen always and some never.
 *
 * For sigmoid scores that are not over their sum, with selection biases, and experts of one width.
 */
export function chooseAlways(architecture: Architecture): Trick {
  const common = commonOf(architecture);
  const factor = 2 / architecture.routing.scale;
  return {
    says: `makes layers alike, ${common.topK} of ${common.experts} experts and ${common.shared} shared, by experts that a selection bias has chosen always or never`,
    fidelity: roundingOf(factor),
    apply: (draft) =>
      redraft(
        draft,
        withMoe(draft.architecture, (layout) => ({
          ...layout,
          experts: common.experts,
          topK: common.topK,
          sharedWidth: common.shared * layout.expertWidth,
          selectionBias: true,
        })),
        readers(draft, common, factor),
      ),
  };
}

function commonOf(architecture: Architecture): Common {
  const layouts = moeLayouts(architecture);
  const shared = Math.max(1, Math.min(...layouts.map(sharedUnits)));
  const topK = Math.max(...layouts.map((layout) => layout.topK + partsOf(layout, shared)));
  const experts = Math.max(...layouts.map((layout) => layout.experts + topK - layout.topK));
  return {experts, topK, shared};
}

/** The shared part in experts, the last of them perhaps in part. */
function sharedUnits({sharedWidth, expertWidth}: MoeLayout): number {
  return Math.ceil(sharedWidth / expertWidth);
}

function partsOf(layout: MoeLayout, shared: number): number {
  return Math.max(0, sharedUnits(layout) - shared);
}

function placesOf(layout: MoeLayout, {topK, shared}: Common): Places {
  const parts = partsOf(layout, shared);
  return {routed: layout.experts, parts, fillers: topK - layout.topK - parts};
}

function readers({architecture}: Draft, common: Common, factor: number): Record<string, Reader> {
  const {width: D} = architecture;
  const {experts: E, shared: n} = common;
  /** A matrix of the shared expert, as wide as its parts are together; neurons are columns, or rows of what goes down. */
  const wideShared = async (layout: MoeLayout, before: Parameters<Reader>[0], name: string): Promise<Float32Array> => {
    const [s, all] = [layout.sharedWidth, (n + partsOf(layout, n)) * layout.expertWidth];
    if (s === 0) return new Float32Array(D * all);
    const values = await before(`ffn.shared.${name}`);
    return name === 'down' ? padBlocks(values, [s, D], [all, D]) : padBlocks(values, [D, s], [D, all]);
  };
  const routed =
    (name: string): Reader =>
    async (before, layer) => {
      const layout = moeAt(architecture, layer);
      const f = layout.expertWidth;
      const target = new Float32Array(E * D * f);
      target.set(await before(`ffn.experts.${name}`));
      const shared = await wideShared(layout, before, name);
      for (let part = 0; part < partsOf(layout, n); part++) {
        const block = cut(shared, D, (n + part) * f, f, name === 'down');
        target.set(name === 'down' ? times(block, factor) : block, (layout.experts + part) * D * f);
      }
      return target;
    };
  const shared =
    (name: string): Reader =>
    async (before, layer) => {
      const layout = moeAt(architecture, layer);
      return cut(await wideShared(layout, before, name), D, 0, n * layout.expertWidth, name === 'down');
    };
  const glu = (path: string, reader: (name: string) => Reader): Record<string, Reader> =>
    Object.fromEntries(['gate', 'up', 'down'].map((name) => [`${path}.${name}`, reader(name)]));
  return {
    ...glu('ffn.experts', routed),
    ...glu('ffn.shared', shared),
    'ffn.router': async (before, layer) =>
      padBlocks(await before('ffn.router'), [D, moeAt(architecture, layer).experts], [D, E]),
    'ffn.bias': async (before, layer) => {
      const layout = moeAt(architecture, layer);
      const own = layout.selectionBias ? await before('ffn.bias') : new Float32Array(layout.experts);
      return biasesOf(own, placesOf(layout, common), E);
    },
  };
}

/** Scores are between 0 and 1, those of a row of zeros a half. */
function biasesOf(own: Float32Array, {routed, parts, fillers}: Places, experts: number): Float32Array {
  const biases = new Float32Array(experts).fill(Math.min(...own) - 1);
  biases.set(own);
  return biases.fill(Math.max(...own) + 1, routed, routed + parts + fillers);
}

/** `count` neurons of a matrix from one on: its columns, or its rows. */
function cut(values: Float32Array, D: number, begin: number, count: number, isRows: boolean): Float32Array {
  if (isRows) return values.slice(begin * D, (begin + count) * D);
  const columns = values.length / D;
  const target = new Float32Array(D * count);
  for (let row = 0; row < D; row++) {
    putBlocks(target, [D, count], values.subarray(row * columns + begin, row * columns + begin + count), [1, count], {
      row,
    });
  }
  return target;
}
