import {createHash} from 'node:crypto';
import type {ChatMessage, ChatTemplate} from '../tokenizer/chat-template.js';
import type {EncodeOptions, Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError} from '../util/errors.js';
import {documentIds} from './pack.js';
import type {Sample} from './sample.js';

/** A sample as a model reads it. */
export interface Encoded {
  readonly ids: Int32Array;
  /** 1 where the token is learnt, 0 where not; undefined if all are. */
  readonly mask?: Int32Array;
}

/** How samples become ids. */
export interface EncodeSampleOptions {
  readonly special: NonNullable<EncodeOptions['special']>;
  readonly loss: 'completion' | 'all';
}

/** SHA-256 of what a sample says, in hex: what parts validation from training. */
export function sampleDigest(sample: Sample): string {
  return createHash('sha256').update(sampleText(sample)).digest('hex');
}

function sampleText(sample: Sample): string {
  switch (sample.kind) {
    case 'text':
      return sample.text;
    case 'prompt':
      return JSON.stringify([sample.prompt, sample.completion]);
    case 'chat':
      return JSON.stringify(sample.messages);
  }
}

/**
 * The ids of a sample, and which of them are learnt.
 *
 * A text and a prompt have the begin and end tokens of documents; a conversation is what the chat template makes of it.
 * @throws DataError if there is no chat template, or it refuses the conversation.
 */
export function encodeSample(tokenizer: Tokenizer, sample: Sample, options: EncodeSampleOptions): Encoded {
  switch (sample.kind) {
    case 'text':
      return {ids: documentIds(tokenizer, sample.text, options.special)};
    case 'prompt':
      return encodePrompt(tokenizer, sample, options);
    case 'chat':
      return encodeChat(tokenizer, sample, options);
  }
}

/** As TRL reads prompt and completion: one text, of which what comes after the prompt's own tokens is learnt. */
function encodePrompt(
  tokenizer: Tokenizer,
  {prompt, completion}: Extract<Sample, {kind: 'prompt'}>,
  {special, loss}: EncodeSampleOptions,
): Encoded {
  const ids = documentIds(tokenizer, `${prompt}${completion}`, special);
  if (loss === 'all') return {ids};
  const begin = documentIds(tokenizer, prompt, special).subarray(0, -1); // without the end token
  return {ids, mask: new Int32Array(ids.length).fill(1, commonLength(begin, ids))};
}

function encodeChat(
  tokenizer: Tokenizer,
  {where, messages, promptLength}: Extract<Sample, {kind: 'chat'}>,
  {loss}: EncodeSampleOptions,
): Encoded {
  const chat = requireTemplate(where, tokenizer);
  const encode = (text: string): Int32Array => tokenizer.encode(text, {addSpecial: false});
  const text = render(where, chat, messages);
  const ids = encode(text);
  if (loss === 'all') return {ids};
  const mask = new Int32Array(ids.length);
  for (const [i, {role}] of messages.entries()) {
    if (role !== 'assistant' || i < promptLength) continue;
    const [begin, end] = answerSpan(where, chat, messages, i, text).map((length) =>
      length === text.length ? ids.length : commonLength(encode(text.slice(0, length)), ids),
    );
    mask.fill(1, begin, end);
  }
  return {ids, mask};
}

/**
 * Where message `i` stands in the rendered conversation, from what the assistant writes itself to what ends its turn:
 * what rendering up to it adds to rendering before it with the answer opened.
 */
function answerSpan(
  where: string,
  chat: ChatTemplate,
  messages: readonly ChatMessage[],
  i: number,
  text: string,
): [begin: number, end: number] {
  const opened = render(where, chat, messages.slice(0, i), true);
  const answered = i + 1 === messages.length ? text : render(where, chat, messages.slice(0, i + 1));
  const begin = commonLength(opened, answered); // some templates open an answer with words that are not in it
  if (text.startsWith(answered) && begin < answered.length) return [begin, answered.length];
  throw new DataError(`${where}: the chat template writes messages[${i}] in another way when more messages follow.`, {
    hint: 'Set `loss: all` for the source, or let every record end with its only assistant message.',
  });
}

function requireTemplate(where: string, {chat}: Tokenizer): ChatTemplate {
  if (chat) return chat;
  throw new DataError(`${where}: a conversation needs a chat template, and the model's folder has none.`, {
    hint: 'Put chat_template.jinja beside its tokenizer.json, such as that of its instruct version; records of `prompt` and `completion` need none.',
  });
}

function render(where: string, chat: ChatTemplate, messages: readonly ChatMessage[], opensAnswer = false): string {
  try {
    return chat.render(messages, {opensAnswer});
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DataError(`${where}: the chat template refuses the conversation: ${reason}`, {
      hint: 'Correct the record, or the template in chat_template.jinja.',
      cause,
    });
  }
}

function commonLength<T>(a: ArrayLike<T>, b: ArrayLike<T>): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}
