// Mixtures of random weights, of any layout.

import type {FloatDtype} from '../../src/format/dtype.js';
import {
  type Architecture,
  type FfnLayout,
  type MoeLayout,
  PLAIN,
  SOFTMAX_ROUTING,
} from '../../src/model/architecture.js';
import type {ParameterSpec} from '../../src/model/parameters.js';
import {saveModel} from '../../src/model/save.js';
import {createRng} from '../../src/util/rng.js';
import {numElements} from '../../src/util/shape.js';

/** A layer of six experts with a linear router, of which two are chosen, and a shared one. */
export function moeLayer(changes: Partial<MoeLayout> = {}): MoeLayout {
  return {
    ...{kind: 'moe', experts: 6, topK: 2, expertWidth: 8, sharedWidth: 16, selectionBias: false, router: 'linear'},
    ...changes,
  } as MoeLayout;
}

/** A llama of three such layers. */
export function mixture(
  changes: Partial<Architecture> = {},
  ffn: readonly FfnLayout[] = Array(3).fill(moeLayer()),
): Architecture {
  return {
    family: 'llama',
    ...PLAIN,
    vocab: 48,
    width: 16,
    heads: 4,
    kvHeads: 2,
    headDim: 4,
    contextLength: 64,
    normEps: 1e-5,
    ropeTheta: 5000,
    tied: false,
    ffn,
    routing: SOFTMAX_ROUTING,
    ...changes,
  };
}

interface Written {
  readonly dtype?: FloatDtype;
  readonly seed?: number;
  /** Gives some parameters other numbers. */
  readonly values?: (spec: ParameterSpec) => Float32Array | undefined;
}

/** Writes it. */
export async function writeMixture(
  path: string,
  architecture: Architecture,
  {dtype = 'F32', seed = 3, values = () => undefined}: Written = {},
): Promise<string> {
  const rng = createRng(seed, 'mixture');
  const read = (spec: ParameterSpec): Float32Array => {
    const {shape, role} = spec;
    const size = role === 'norm' || role.endsWith('bias') || role === 'scale' ? 0.3 : (shape.at(-2) ?? 1) ** -0.5;
    const mean = role === 'norm' ? 1 : 0;
    const drawn = Float32Array.from({length: numElements(shape)}, () => mean + size * rng.normal());
    return values(spec) ?? drawn;
  };
  await saveModel(path, {architecture, dtype, read});
  return path;
}
