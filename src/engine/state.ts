import type {TensorFlowBackend} from './tensorflow/backend.js';

/** The engine in use. */
export type Engine = {readonly kind: 'tensorflow'; readonly backend: TensorFlowBackend} | {readonly kind: 'wasm'};

let current: Engine | null = null;

/** Remembers the engine that was started. */
export function setEngine(engine: Engine): void {
  current = engine;
}

/** @throws Error if no engine was started. */
export function getEngine(): Engine {
  if (!current) throw new Error('No engine is running: call startEngine() first.');
  return current;
}

/** The engine in use, or null before {@link setEngine}. */
export function startedEngine(): Engine | null {
  return current;
}
