import * as tf from '@tensorflow/tfjs';
import {type Compiled, compile} from '../engine/compile.js';
import type {Precision} from '../engine/precision.js';
import {decode, logits} from '../model/decoder.js';
import type {Model} from '../model/model.js';
import {mapTree} from '../model/parameters.js';
import {DataError, ModelError, UsageError} from '../util/errors.js';
import {createRng} from '../util/rng.js';
import {pickToken, type Sampling} from './sampling.js';

/** How a text is continued. */
export interface GenerateOptions {
  /** Tokens to add at most. */
  readonly maxTokens: number;
  readonly sampling: Sampling;
  /** Decides every draw; default 0. */
  readonly seed?: number;
  /** Tokens that end the text, such as the tokenizer's `eosId`. */
  readonly stopIds?: readonly number[];
}

/** What was added to a prompt. */
export interface Generation {
  /** The new tokens, without the one that ended the text. */
  readonly tokens: Int32Array;
  readonly end: 'stop' | 'length';
}

/** Continues prompts with one model. */
export interface Generator {
  /**
   * Adds tokens to a prompt, one forward pass each.
   *
   * @throws UsageError if prompt and new tokens are more than `length`, or the sampling is impossible.
   * @throws DataError if the prompt is empty or has an id outside the vocabulary.
   * @throws ModelError if a logit is not a number.
   */
  generate(prompt: ArrayLike<number>, options: GenerateOptions): Promise<Generation>;
  dispose(): void;
}

/**
 * A generator for texts of at most `length` tokens, prompt included; it reads the variables as they stand at each call.
 *
 * Every pass runs over all `length` positions, so that one compiled function serves and none is compiled at each new
 * token: what stands behind a position cannot change it. There is no cache of keys and values, so a token costs as much
 * as a whole text; meant for looking at samples, not for serving. Every expert computes every token, so routing is exact.
 * @throws UsageError if `length` is beyond the context the model was made for.
 */
export function createGenerator(
  model: Pick<Model, 'architecture' | 'parameters'>,
  length: number,
  precision: Precision = 'float32',
): Generator {
  const {contextLength, vocab} = model.architecture;
  if (!Number.isInteger(length) || length < 1 || length > contextLength) {
    throw new UsageError(`A text of ${length} tokens was asked for; the model takes 1 to ${contextLength}.`);
  }
  const next = compileNext(model, precision);
  return {
    generate: async (prompt, options) => {
      checkOptions(options, prompt.length, length);
      checkPrompt(prompt, vocab);
      return extend(
        next,
        Int32Array.from({length}, (_, i) => prompt[i] ?? 0),
        prompt.length,
        options,
      );
    },
    dispose: () => next.dispose(),
  };
}

type NextLogits = Compiled<[tf.Tensor2D, tf.Tensor1D], {logit_V: tf.Tensor}>;

/** `(token_1S, position_1) → logits after that position`. */
function compileNext(
  {architecture, parameters}: Pick<Model, 'architecture' | 'parameters'>,
  precision: Precision,
): NextLogits {
  const next = (token_BS: tf.Tensor2D, position_1: tf.Tensor1D): {logit_V: tf.Tensor} => {
    const values = mapTree(parameters, (variable) => variable.read());
    const {hidden_TD} = decode(values, architecture, {token_BS});
    return {logit_V: tf.reshape(logits(tf.gather(hidden_TD, position_1), values), [architecture.vocab])};
  };
  return compile(next, {name: 'next_logits', precision});
}

/** Writes new tokens behind the first `start` of `tokens`, which has room for them. */
async function extend(
  next: NextLogits,
  tokens: Int32Array,
  start: number,
  {maxTokens, sampling, seed = 0, stopIds = []}: GenerateOptions,
): Promise<Generation> {
  const rng = createRng(seed, 'generate');
  for (let position = start; position < start + maxTokens; position++) {
    const token = pickToken(await logitsAfter(next, tokens, position - 1), sampling, rng.uniform());
    if (stopIds.includes(token)) return {tokens: tokens.slice(start, position), end: 'stop'};
    tokens[position] = token;
  }
  return {tokens: tokens.slice(start, start + maxTokens), end: 'length'};
}

async function logitsAfter(next: NextLogits, tokens: Int32Array, position: number): Promise<Float32Array> {
  const token_BS = tf.tensor2d(tokens.slice(), [1, tokens.length], 'int32');
  const position_1 = tf.tensor1d([position], 'int32');
  try {
    const {logit_V} = await next(token_BS, position_1);
    const values = await logit_V.data<'float32'>();
    logit_V.dispose();
    if (values.every(Number.isFinite)) return values;
    throw new ModelError(`The logits after token ${position + 1} are not all numbers.`, {
      hint: 'Its training diverged or its weights are damaged: take an earlier checkpoint.',
    });
  } finally {
    tf.dispose([token_BS, position_1]);
  }
}

function checkOptions({maxTokens, sampling}: GenerateOptions, promptLength: number, length: number): void {
  if (!Number.isInteger(maxTokens) || maxTokens < 0) {
    throw new UsageError(`${maxTokens} new tokens were asked for; a whole number is needed.`);
  }
  if (promptLength + maxTokens > length) {
    throw new UsageError(
      `A prompt of ${promptLength} tokens and ${maxTokens} new ones are more than the text's length of ${length}.`,
      {hint: 'Ask for fewer tokens or shorten the prompt.'},
    );
  }
  if (sampling.kind === 'greedy') return;
  const {temperature, topP} = sampling;
  if (!(temperature > 0 && temperature < Number.POSITIVE_INFINITY)) {
    throw new UsageError(`temperature is ${temperature}; a number above 0 is needed.`, {
      hint: 'Greedy sampling is the limit of low temperatures.',
    });
  }
  if (!(topP > 0 && topP <= 1)) throw new UsageError(`topP is ${topP}; a share above 0 and at most 1 is needed.`);
}

function checkPrompt(prompt: ArrayLike<number>, vocab: number): void {
  if (prompt.length === 0) {
    throw new DataError('The prompt has no tokens.', {hint: 'Give at least one, such as the begin token.'});
  }
  const wrong = Array.from(prompt).find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
  if (wrong === undefined) return;
  throw new DataError(`The prompt has token ${wrong}; the model's vocabulary is 0 to ${vocab - 1}.`, {
    hint: 'Encode with the tokenizer of the model.',
  });
}
