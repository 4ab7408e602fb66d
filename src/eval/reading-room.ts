// A model with room for the keys and values of so many positions: what is compiled for that size, and how it reads.

import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import {getEngine} from '../engine/state.js';
import * as tf from '../engine/tfjs.js';
import {type Cache, copyCache, createCache} from '../model/cache.js';
import {decode, logits} from '../model/decoder.js';
import type {Model} from '../model/model.js';
import {mapTree} from '../model/parameters.js';
import {ModelError} from '../util/errors.js';

/** A model and its cache of one size. */
export interface Room {
  /** Positions there is room for. */
  readonly capacity: number;
  /** `(token_1S, first position, row) → logits after that row`; S tokens are written into the cache. */
  readonly read: Reading;
  /** Takes over what a smaller room has in its cache. */
  take(smaller: Room): void;
  readonly cache: Cache;
  dispose(): void;
}

type Reading = Compiled<[tf.Tensor2D, tf.Tensor1D, tf.Tensor1D], {logit_V: tf.Tensor}>;

/** Tokens of a prompt that are read at once; where it is compiled a rest is filled up, for each size is a program of its own. */
const LARGEST_CHUNK = 512;
const CHUNKS = [32, 128, LARGEST_CHUNK] as const;
/** What a pass counts besides its tokens: one of a single token takes as long as 20 in a chunk of 512 (docs/log.md, SmolLM2-135M). */
const PASS_TOKENS = 20;

/** The least of the sizes that hold so many positions: doubled from the smallest on. */
export function capacityFor(length: number): number {
  let capacity = 128;
  while (capacity < length) capacity *= 2;
  return capacity;
}

/** A room with an empty cache; nothing is compiled before it reads. */
export function createRoom(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  capacity: number,
  precision: Precision,
): Room {
  const cache = createCache(architecture, capacity);
  const read = (token_BS: tf.Tensor2D, start_1: tf.Tensor1D, row_1: tf.Tensor1D): {logit_V: tf.Tensor} => {
    const values = mapTree(parameters, (variable) => variable.read());
    const {hidden_TD} = decode(values, architecture, {token_BS, past: {cache, start_1}}, {capacity: 'chosen'});
    return {logit_V: tf.reshape(logits(tf.gather(hidden_TD, row_1), values), [architecture.vocab])};
  };
  const compiled = compile(read, {name: 'generate', precision});
  return {
    capacity,
    cache,
    read: compiled,
    take: (smaller) => copyCache(smaller.cache, cache),
    dispose: () => {
      compiled.dispose();
      cache.dispose();
    },
  };
}

/** Reads a whole prompt from position 0 on; the logits after it. */
export async function readAll(room: Room, prompt: Int32Array): Promise<Float32Array> {
  const isCompiled = getEngine().kind === 'tensorflow';
  const chunk = isCompiled ? chunkFor(prompt.length) : LARGEST_CHUNK;
  let logit_V: Float32Array = new Float32Array();
  for (let start = 0; start < prompt.length; start += chunk) {
    const tokens = prompt.subarray(start, start + chunk);
    logit_V = await logitsAfter(room, tokens, start, isCompiled ? chunk : tokens.length);
  }
  return logit_V;
}

/** The size of chunks in which a prompt is read soonest where the last one is filled up; it finds room wherever the prompt does. */
export function chunkFor(length: number): number {
  const cost = (size: number): number => Math.ceil(length / size) * (size + PASS_TOKENS);
  return CHUNKS.reduce<number>((best, size) => (cost(size) <= cost(best) ? size : best), CHUNKS[0]);
}

/**
 * Writes tokens into the cache from position `start` on; the logits after the last of them.
 *
 * Filled up to `rows`, what is written behind them is hidden until the tokens of those positions are written over it.
 * @throws ModelError if a logit is not a number.
 */
export async function logitsAfter(
  {read}: Room,
  tokens: ArrayLike<number>,
  start: number,
  rows: number = tokens.length,
): Promise<Float32Array> {
  const filled = Int32Array.from({length: rows}, (_, i) => tokens[i] ?? 0);
  const inputs = [
    tf.tensor2d(filled, [1, rows], 'int32'),
    tf.tensor1d([start], 'int32'),
    tf.tensor1d([tokens.length - 1], 'int32'),
  ] as const;
  try {
    const {logit_V} = await read(...inputs);
    const values = await logit_V.data<'float32'>();
    logit_V.dispose();
    if (values.every(Number.isFinite)) return values;
    throw new ModelError(`The logits after token ${start + tokens.length} are not all numbers.`, {
      hint: 'Its training diverged or its weights are damaged: take an earlier checkpoint.',
    });
  } finally {
    tf.dispose([...inputs]);
  }
}
