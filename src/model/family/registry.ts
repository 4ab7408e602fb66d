import type {Family} from '../architecture.js';
import type {FamilyDefinition} from './definition.js';
import {LLAMA} from './llama.js';

/** Every family that can be read and written. */
export const FAMILIES: Readonly<Record<Family, FamilyDefinition>> = {llama: LLAMA};

/** Whether a `model_type` is one of {@link FAMILIES}. */
export function isFamily(modelType: unknown): modelType is Family {
  return typeof modelType === 'string' && Object.hasOwn(FAMILIES, modelType);
}
