import {nearest} from '../../util/nearest.js';
import type {Family} from '../architecture.js';
import {DBRX} from './dbrx.js';
import type {FamilyDefinition} from './definition.js';
import {FLEX_OLMO} from './flex-olmo.js';
import {GLM4_MOE} from './glm4-moe.js';
import {GRANITE} from './granite.js';
import {GRANITE_MOE_SHARED} from './granite-moe-shared.js';
import {LLAMA} from './llama.js';
import {MISTRAL} from './mistral.js';
import {MIXTRAL} from './mixtral.js';
import {OLMO} from './olmo.js';
import {OLMO2} from './olmo2.js';
import {OLMOE} from './olmoe.js';
import {QWEN2} from './qwen2.js';
import {QWEN2_MOE} from './qwen2-moe.js';
import {QWEN3} from './qwen3.js';
import {QWEN3_MOE} from './qwen3-moe.js';

/** Every family that can be read and written. */
export const FAMILIES: Readonly<Record<Family, FamilyDefinition>> = {
  llama: LLAMA,
  mistral: MISTRAL,
  qwen2: QWEN2,
  qwen3: QWEN3,
  olmo: OLMO,
  olmo2: OLMO2,
  granite: GRANITE,
  mixtral: MIXTRAL,
  qwen2_moe: QWEN2_MOE,
  qwen3_moe: QWEN3_MOE,
  olmoe: OLMOE,
  flex_olmo: FLEX_OLMO,
  glm4_moe: GLM4_MOE,
  granitemoeshared: GRANITE_MOE_SHARED,
  dbrx: DBRX,
};

/** Whether a `model_type` is one of {@link FAMILIES}. */
export function isFamily(modelType: unknown): modelType is Family {
  return typeof modelType === 'string' && Object.hasOwn(FAMILIES, modelType);
}

/** `known are llama, mistral ...`, and which of them comes nearest to an unknown `model_type`, if one does. */
export function describeKnown(modelType: unknown, known: readonly string[]): string {
  const list = `known are ${known.join(', ')}`;
  if (typeof modelType !== 'string') return list;
  // `qwen3_next` and the like are variants of the family that their name begins with
  const closest = nearest(modelType, known) ?? nearest(modelType.split('_')[0] ?? '', known);
  return closest === null ? list : `${list}; nearest is ${closest}`;
}
