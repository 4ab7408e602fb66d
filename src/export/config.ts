// The config of an exported model.
import type {MixtureFamily} from '../model/architecture.js';
import type {ConfigRecord} from '../model/family/definition.js';
import {FAMILIES} from '../model/family/registry.js';
import type {Draft} from './draft.js';

/** Keys of a model's config that say nothing of its architecture, and stay. */
const KEPT = ['bos_token_id', 'eos_token_id', 'pad_token_id', 'initializer_range', 'dtype', 'torch_dtype', 'use_cache'];

/** What of a source's config goes into that of its export; positions are said in the form that transformers 4 and 5 read. */
export function exportConfig(source: ConfigRecord): ConfigRecord {
  const kept = Object.fromEntries(Object.entries(source).filter(([key]) => KEPT.includes(key)));
  // some families have defaults for them that lie outside of a small vocabulary
  return {bos_token_id: null, eos_token_id: null, pad_token_id: null, ...kept};
}

/** A draft as a model of a family. @throws Error if the family cannot say it after all. */
export function familyForm({architecture, read}: Draft, family: MixtureFamily): Draft {
  const made = {...architecture, family};
  if (!FAMILIES[family].saysExperts?.(made)) throw new Error(`${family} cannot say what was made for it`);
  return {architecture: made, read};
}
