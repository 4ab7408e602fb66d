// A model on its way to another form: each trick takes a draft and gives one that computes the same, or nearly.
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture, MoeLayout} from '../model/architecture.js';
import {readParameter} from '../model/load.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';

/** A model that is not written yet. */
export interface Draft {
  readonly architecture: Architecture;
  /** A parameter by its path, float32 in our layout; the array is the receiver's to keep. */
  readonly read: (path: string) => Promise<Float32Array>;
}

/** Gives a parameter of a layer. @param before reads one of the draft before, of the same layer. */
export type Reader = (before: (name: string) => Promise<Float32Array>, layer: number) => Promise<Float32Array>;

/** The model of a folder as it is. */
export function draftOf(folder: ModelFolder, architecture: Architecture): Draft {
  const specs = new Map(leavesOf(parameterSpecs(architecture)).map((spec) => [spec.path, spec]));
  return {
    architecture,
    read: (path) => {
      const spec = specs.get(path);
      if (!spec) throw new Error(`there is no parameter ${path}`);
      return readParameter(folder, architecture, spec);
    },
  };
}

/** A draft of another architecture, in which `readers` give parameters of layers by their names there (`ffn.router`). */
export function redraft(draft: Draft, architecture: Architecture, readers: Readonly<Record<string, Reader>>): Draft {
  return {
    architecture,
    read: (path) => {
      const [, layer = '', name = ''] = /^layers\.(\d+)\.(.+)$/.exec(path) ?? [];
      const reader = readers[name];
      return reader ? reader((other) => draft.read(`layers.${layer}.${other}`), Number(layer)) : draft.read(path);
    },
  };
}

/** An architecture whose layers of experts are others. */
export function withMoe(
  architecture: Architecture,
  change: (layout: MoeLayout, layer: number) => MoeLayout,
): Architecture {
  return {
    ...architecture,
    ffn: architecture.ffn.map((layout, l) => (layout.kind === 'moe' ? change(layout, l) : layout)),
  };
}

/** The layout of a layer of experts. */
export function moeAt({ffn}: Architecture, layer: number): MoeLayout {
  const layout = ffn[layer];
  if (layout?.kind === 'moe') return layout;
  throw new Error(`layer ${layer} has no experts`);
}

/** Every number times a factor, in place. */
export function times(values: Float32Array, factor: number): Float32Array {
  if (factor === 1) return values;
  for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * factor;
  return values;
}
