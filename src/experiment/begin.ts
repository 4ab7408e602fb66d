import type {Config} from '../config/schema.js';
import {modelWarnings} from '../downcycle/model-source.js';
import {type EngineInfo, startEngine} from '../engine/start.js';
import type {CompareEvent} from './compare.js';

/**
 * Starts a config's engine, and says what a person should know of it and of the models that are to be read.
 *
 * @throws ModelError if a model is damaged; what {@link startEngine} throws.
 */
export async function begin(
  {engine: options}: Pick<Config, 'engine'>,
  models: readonly string[],
  onEvent: (event: CompareEvent) => void,
): Promise<EngineInfo> {
  const engine = await startEngine(options);
  for (const text of engine.notes) onEvent({kind: 'stage', text});
  for (const model of new Set(models)) {
    for (const text of await modelWarnings(model)) onEvent({kind: 'warning', text});
  }
  return engine;
}
