import type {Precision} from '../engine/precision.js';
import type {Model} from '../model/model.js';
import {DataError, UsageError} from '../util/errors.js';
import {createRng} from '../util/rng.js';
import {capacityFor, createRoom, logitsAfter, type Room, readAll} from './reading-room.js';
import {checkSampling, pickToken, type Sampling} from './sampling.js';

/** How a text is continued. */
export interface ContinueOptions {
  /** Tokens to add at most. */
  readonly maxTokens: number;
  readonly sampling: Sampling;
  /** Decides every draw; default 0. */
  readonly seed?: number;
  /** Tokens that end the text, such as the tokenizer's `eosId`. */
  readonly stopIds?: readonly number[];
  /** Only ids below are chosen, where the model's vocabulary is larger than the tokenizer's; default all. */
  readonly vocabulary?: number;
  /** Sees each new token as it comes, and may end the text after it. */
  readonly onToken?: (token: number) => 'stop' | undefined;
}

/** What was added to a prompt. */
export interface Generation {
  /** The new tokens, without the one of `stopIds` that ended the text. */
  readonly tokens: Int32Array;
  readonly end: 'stop' | 'length';
}

/** Continues prompts with one model. */
export interface Generator {
  /**
   * Adds tokens to a prompt: the prompt is read once, then each token alone.
   *
   * @throws UsageError if prompt and new tokens are more than the model's context, or the sampling is impossible.
   * @throws DataError if the prompt is empty, takes all of the context, or has an id outside the vocabulary.
   * @throws ModelError if a logit is not a number.
   */
  generate(prompt: ArrayLike<number>, options: ContinueOptions): Promise<Generation>;
  /** Compiles beforehand what a text of this length needs first. */
  prepare(promptLength: number, maxTokens: number): Promise<void>;
  dispose(): void;
}

/** New tokens that there is room for from the beginning; more of it is made when they are more. */
const FIRST_TOKENS = 256;

/**
 * A generator of texts, which reads the variables as they stand at each call.
 *
 * Keys and values of the positions before are kept, and at each token only the matrices of the chosen experts are read.
 * Sizes go in steps, so that few programs are compiled. Routing drops nothing.
 */
export function createGenerator(
  model: Pick<Model, 'architecture' | 'parameters'>,
  precision: Precision = 'float32',
): Generator {
  const rooms = new Map<number, Room>();
  const roomFor = (length: number): Room => {
    const capacity = capacityFor(length);
    const room = rooms.get(capacity) ?? createRoom(model, capacity, precision);
    rooms.set(capacity, room);
    return room;
  };
  return {
    generate: async (prompt, options) => {
      checkRoom(prompt.length, options.maxTokens, model.architecture.contextLength);
      checkSampling(options.sampling);
      checkPrompt(prompt, model.architecture.vocab);
      return extend(roomFor, Int32Array.from(prompt), options);
    },
    prepare: async (promptLength, maxTokens) => {
      await readAll(roomFor(promptLength), new Int32Array(promptLength));
      if (maxTokens > 1) await logitsAfter(roomToBegin(roomFor, promptLength, maxTokens), [0], promptLength);
    },
    dispose: () => {
      for (const room of rooms.values()) room.dispose();
      rooms.clear();
    },
  };
}

/** Where new tokens begin: a prompt is read in a room of its own size, for its attention goes over the whole of the room. */
function roomToBegin(roomFor: (length: number) => Room, promptLength: number, maxTokens: number): Room {
  return roomFor(promptLength + Math.min(maxTokens, FIRST_TOKENS));
}

async function extend(
  roomFor: (length: number) => Room,
  prompt: Int32Array,
  {maxTokens, sampling, seed = 0, stopIds = [], vocabulary, onToken}: ContinueOptions,
): Promise<Generation> {
  const rng = createRng(seed, 'generate');
  const tokens: number[] = [];
  const ended = (end: Generation['end']): Generation => ({tokens: Int32Array.from(tokens), end});
  if (maxTokens === 0) return ended('length');
  let room = roomFor(prompt.length);
  let logit_V = await readAll(room, prompt);
  if (maxTokens > 1) room = moved(room, roomToBegin(roomFor, prompt.length, maxTokens));
  for (;;) {
    const token = pickToken(logit_V.subarray(0, vocabulary), sampling, rng.uniform());
    if (stopIds.includes(token)) return ended('stop');
    const position = prompt.length + tokens.push(token) - 1;
    if (onToken?.(token) === 'stop') return ended('stop');
    if (tokens.length === maxTokens) return ended('length');
    if (position === room.capacity) room = moved(room, roomFor(position + 1));
    logit_V = await logitsAfter(room, [token], position);
  }
}

function moved(from: Room, to: Room): Room {
  if (to !== from) to.take(from);
  return to;
}

/**
 * @throws UsageError if so many new tokens cannot be, or there are no positions for them; DataError if there are none for any.
 */
export function checkRoom(promptLength: number, maxTokens: number, context: number): void {
  if (!Number.isInteger(maxTokens) || maxTokens < 0) {
    throw new UsageError(`${maxTokens} new tokens were asked for; a whole number is needed.`);
  }
  if (promptLength >= context) {
    throw new DataError(
      `The prompt has ${promptLength} tokens; the model has ${context} positions, for new tokens, too.`,
      {hint: 'Shorten the prompt.'},
    );
  }
  if (promptLength + maxTokens <= context) return;
  throw new UsageError(
    `A prompt of ${promptLength} tokens and ${maxTokens} new ones are more than the ${context} positions of the model.`,
    {hint: `Ask for ${context - promptLength} new ones or fewer (--max-tokens), or shorten the prompt.`},
  );
}

/** @throws DataError if a prompt is empty or has an id outside the vocabulary. */
export function checkPrompt(prompt: ArrayLike<number>, vocab: number): void {
  if (prompt.length === 0) {
    throw new DataError('The prompt has no tokens.', {hint: 'Give at least one, such as the begin token.'});
  }
  const wrong = Array.from(prompt).find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
  if (wrong === undefined) return;
  throw new DataError(`The prompt has token ${wrong}; the model's vocabulary is 0 to ${vocab - 1}.`, {
    hint: 'Encode with the tokenizer of the model.',
  });
}
