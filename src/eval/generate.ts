// Text that a model adds to a prompt.
import {z} from 'zod';
import {getEngine} from '../engine/state.js';
import {jsonObject, type ModelFolder} from '../format/model-folder.js';
import {openTokenizerFiles} from '../format/tokenizer-files.js';
import type {Architecture} from '../model/architecture.js';
import {loadModel} from '../model/model.js';
import type {ChatMessage} from '../tokenizer/chat-template.js';
import {createStreamDecoder} from '../tokenizer/stream-decoder.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, ModelError, UsageError} from '../util/errors.js';
import {checkPrompt, checkRoom, createGenerator} from './generator.js';
import {checkSampling, type Sampling} from './sampling.js';
import {createStopText} from './stop-text.js';
import {openSubject, type Subject} from './subject.js';

/** What a model goes on from: a text as it is, or a conversation in the words of its chat template. */
export type Prompt =
  | {readonly kind: 'text'; readonly text: string}
  | {readonly kind: 'chat'; readonly messages: readonly ChatMessage[]};

/** What is generated. */
export interface GenerateOptions {
  /** Model folder, dense or a mixture, with its tokenizer. */
  readonly model: string;
  readonly prompt: Prompt;
  /** Tokens to add at most; default 256, or as many as the model has positions for. */
  readonly maxTokens?: number | undefined;
  /** Default greedy. */
  readonly sampling?: Sampling | undefined;
  /** Decides every draw; default 0. */
  readonly seed?: number | undefined;
  /** Strings or special tokens that end the text, which are not part of it. */
  readonly stop?: readonly string[] | undefined;
}

/** What is told while a text is made. */
export type GenerateEvent =
  | {readonly kind: 'stage'; readonly text: string}
  /** What a person should know of the model's files. */
  | {readonly kind: 'warning'; readonly text: string}
  /** The prompt is about to be read. */
  | {readonly kind: 'ready'}
  /** More of the text, whole characters. */
  | {readonly kind: 'text'; readonly text: string};

/** A text, and how it came about. */
export interface Generated {
  readonly model: string;
  /** The prompt as the model read it, template and special tokens written out. */
  readonly prompt: string;
  readonly promptTokens: readonly number[];
  readonly text: string;
  /** The new tokens, without an end token. */
  readonly tokens: readonly number[];
  /** An end token, a string that ends the text, the most tokens, or the caller. */
  readonly end: 'stop' | 'string' | 'length' | 'interrupted';
  readonly seconds: {
    /** From the prompt to the first token. */
    readonly prompt: number;
    /** From the first token to the last. */
    readonly tokens: number;
  };
}

/** Tokens to add, unless asked for. */
const MAX_TOKENS = 256;

/**
 * Continues a prompt in float32, token by token; the engine must have been started.
 *
 * The text ends at an end token of generation_config.json, else of config.json, else of the tokenizer.
 * @param shouldStop asked after each token: whether the text is to end there.
 * @throws UsageError if the sampling is impossible, or more tokens are asked for than the model has positions.
 * @throws DataError if the prompt is empty, too long, or of another vocabulary.
 * @throws ModelError if the model is damaged, has no tokenizer or no chat template that it needs, or gives logits that are no numbers.
 */
export async function generate(
  options: GenerateOptions,
  onEvent: (event: GenerateEvent) => void = () => undefined,
  shouldStop: () => boolean = () => false,
): Promise<Generated> {
  const plan = await planOf(options);
  onEvent({kind: 'stage', text: `reading ${options.model}`});
  const model = await loadModel(options.model);
  for (const text of [...model.warnings, ...vocabularyWarning(options.model, plan.tokenizer, model.architecture)]) {
    onEvent({kind: 'warning', text});
  }
  const generator = createGenerator(model);
  try {
    if (getEngine().kind === 'tensorflow') {
      onEvent({kind: 'stage', text: 'compiling'});
      await generator.prepare(plan.promptTokens.length, plan.maxTokens);
    }
    onEvent({kind: 'ready'});
    return await run(generator, plan, options, onEvent, shouldStop);
  } finally {
    generator.dispose();
    model.dispose();
  }
}

/** The tokenizers of a few models know ids that are never used; one that knows many may be another model's. */
function vocabularyWarning(path: string, {vocabSize}: Tokenizer, {vocab}: Architecture): string[] {
  if (vocabSize <= vocab) return [];
  return [
    `${path}: the embedding has ${vocab} rows, the tokenizer knows ${vocabSize} ids; text is nonsense if it is that of another model.`,
  ];
}

/** What is to be done, checked before weights are read. */
interface Plan {
  readonly tokenizer: Tokenizer;
  readonly prompt: string;
  readonly promptTokens: Int32Array;
  readonly maxTokens: number;
  readonly stopIds: readonly number[];
  /** Strings that end the text and are no special token. */
  readonly stop: readonly string[];
}

async function planOf({model, prompt, maxTokens, sampling, stop = []}: GenerateOptions): Promise<Plan> {
  if (sampling) checkSampling(sampling);
  if (stop.includes('')) throw new UsageError('A string that ends the text must not be empty.');
  const subject = await openSubject(model);
  try {
    const {tokenizer, architecture, folder} = subject;
    const text = promptText(prompt, subject);
    const promptTokens = tokenizer.encode(text, {addSpecial: prompt.kind === 'text' && 'before'});
    checkPrompt(promptTokens, architecture.vocab);
    const room = architecture.contextLength - promptTokens.length;
    checkRoom(promptTokens.length, maxTokens ?? 1, architecture.contextLength);
    const specials = stop.map((one) => specialId(tokenizer, one));
    return {
      tokenizer,
      prompt: text,
      promptTokens,
      maxTokens: maxTokens ?? Math.min(MAX_TOKENS, room),
      stopIds: [...(await stopIdsOf(folder, tokenizer)), ...specials.filter((id) => id !== null)],
      stop: stop.filter((_, i) => specials[i] === null),
    };
  } finally {
    await subject.folder.close();
  }
}

/** The id of a special token, which no text shows; null if a string is none. */
function specialId(tokenizer: Tokenizer, text: string): number | null {
  const [id, ...others] = tokenizer.encode(text, {addSpecial: false});
  if (id === undefined || others.length > 0) return null;
  return tokenizer.decode([id], {skipSpecial: true}) === '' ? id : null;
}

function promptText(prompt: Prompt, {model, tokenizer}: Subject): string {
  if (prompt.kind === 'text') {
    if (prompt.text !== '') return prompt.text;
    throw new DataError('The prompt is empty.', {hint: 'Give the model some text to go on from.'});
  }
  if (!tokenizer.chat) {
    throw new ModelError(`${model} has no chat template, so it does not say how conversations are written.`, {
      hint: 'Continue plain text instead (--prompt), or put the chat_template.jinja of the model that it was made of into its folder.',
    });
  }
  try {
    return tokenizer.chat.render(prompt.messages, {opensAnswer: true});
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ModelError(`The chat template of ${model} refuses the conversation: ${reason}`, {cause});
  }
}

const endSchema = z.looseObject({eos_token_id: z.union([z.int(), z.array(z.int())]).nullish()});
const GENERATION_CONFIG = 'generation_config.json';

async function stopIdsOf({path, config, configFile}: ModelFolder, {eosId}: Tokenizer): Promise<readonly number[]> {
  const files = await openTokenizerFiles(path);
  const file = files.label(GENERATION_CONFIG);
  const text = await files.read(GENERATION_CONFIG);
  const ends = (text && endIds(jsonObject(text.toString('utf8'), file), file)) ?? endIds(config, configFile);
  return ends ?? (eosId === null ? [] : [eosId]);
}

function endIds(settings: Readonly<Record<string, unknown>>, file: string): readonly number[] | null {
  const parsed = endSchema.safeParse(settings);
  if (!parsed.success) throw new ModelError(`${file}: eos_token_id is neither an id nor a list of ids.`);
  const {eos_token_id: ids} = parsed.data;
  if (ids == null) return null;
  return typeof ids === 'number' ? [ids] : ids;
}

async function run(
  generator: ReturnType<typeof createGenerator>,
  {tokenizer, prompt, promptTokens, maxTokens, stopIds, stop}: Plan,
  {model, sampling = {kind: 'greedy'}, seed = 0}: GenerateOptions,
  onEvent: (event: GenerateEvent) => void,
  shouldStop: () => boolean,
): Promise<Generated> {
  const decoder = createStreamDecoder(tokenizer, promptTokens);
  const stopText = createStopText(stop);
  let [text, isInterrupted, isFound] = ['', false, false];
  const show = (piece: string): void => {
    text += piece;
    if (piece !== '') onEvent({kind: 'text', text: piece});
  };
  const times = [performance.now()];
  const onToken = (token: number): 'stop' | undefined => {
    times.push(performance.now());
    const found = stopText.push(decoder.push(token));
    show(found.text);
    isFound = found.isFound;
    isInterrupted = !isFound && shouldStop();
    return isFound || isInterrupted ? 'stop' : undefined;
  };
  const options = {maxTokens, sampling, seed, stopIds, vocabulary: tokenizer.vocabSize, onToken};
  const {tokens, end} = await generator.generate(promptTokens, options);
  if (!isFound) {
    const last = stopText.push(decoder.flush());
    isFound = last.isFound;
    show(last.isFound ? last.text : last.text + stopText.flush());
  }
  const [begin = 0, first = performance.now()] = times;
  return {
    model,
    prompt,
    promptTokens: Array.from(promptTokens),
    text,
    tokens: Array.from(tokens),
    end: isInterrupted ? 'interrupted' : isFound ? 'string' : end,
    seconds: {prompt: (first - begin) / 1000, tokens: ((times.at(-1) ?? first) - first) / 1000},
  };
}
