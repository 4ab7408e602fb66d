import {type MethodOptions, methodSchema} from './options.js';

type Settings = Readonly<Record<string, unknown>>;

/** What a method says beyond its name: its counts, and whatever is not as it would be without being asked for. */
export function changedOptions(options: MethodOptions): Settings {
  const {method, experts, topK} = options;
  const shards = 'shards' in options ? {shards: options.shards} : {};
  const given = {method, experts, topK, ...shards};
  const counts = {experts, ...('shared' in options && {shared: options.shared}), topK, ...shards};
  const bare: Settings = methodSchema.parse(given);
  // an allocation has defaults of its own
  const usual: Settings =
    'allocation' in options ? methodSchema.parse({...given, allocation: options.allocation}) : bare;
  const settings = Object.entries(options).filter(
    ([name, value]) => value !== (name === 'allocation' ? bare : usual)[name],
  );
  return {...counts, ...Object.fromEntries(settings)};
}
