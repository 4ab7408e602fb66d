// Words of a mixture that its numbers do not need: biases and scales of zeros, factors that are what they are anyway.
import {type Architecture, moeLayouts} from '../model/architecture.js';
import {type Draft, withMoe} from './draft.js';

/**
 * The same model without selection biases that are all alike, biases of experts that are all zero, and scales of scores that are:
 * training-free conversions and fresh trainers leave such, and most families have no words for them.
 */
export async function simplify(draft: Draft): Promise<Draft> {
  const {architecture} = draft;
  const every = async (name: string, has: (values: Float32Array) => boolean): Promise<boolean> => {
    for (const [l, {kind}] of architecture.ffn.entries()) {
      if (kind === 'moe' && !has(await draft.read(`layers.${l}.ffn.${name}`))) return false;
    }
    return true;
  };
  const layouts = moeLayouts(architecture);
  const dropsBias = layouts.every((layout) => layout.selectionBias) && (await every('bias', isConstant));
  const dropsExpertBias = layouts.every((layout) => layout.expertBias) && (await every('expertBias', isZero));
  const dropsScale = architecture.routing.weight === 'one-plus-scaled' && (await every('scale', isZero));
  return {...draft, architecture: without(architecture, {dropsBias, dropsExpertBias, dropsScale})};
}

interface Dropped {
  readonly dropsBias: boolean;
  readonly dropsExpertBias: boolean;
  readonly dropsScale: boolean;
}

function without(architecture: Architecture, {dropsBias, dropsExpertBias, dropsScale}: Dropped): Architecture {
  const {routing, multipliers, headDim} = architecture;
  const isPlain = multipliers.attention === headDim ** -0.5; // what it is where nobody says it
  const plain = isPlain ? {...architecture, multipliers: {...multipliers, attention: null}} : architecture;
  const changed = withMoe(plain, ({expertBias, ...layout}) => ({
    ...layout,
    selectionBias: layout.selectionBias && !dropsBias,
    ...(expertBias && !dropsExpertBias && {expertBias}),
  }));
  return dropsScale ? {...changed, routing: {...routing, weight: 'one'}} : changed;
}

function isConstant(values: Float32Array): boolean {
  return values.every((value) => value === values[0]);
}

function isZero(values: Float32Array): boolean {
  return values.every((value) => value === 0);
}
