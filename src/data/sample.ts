// What a record teaches: a text, a prompt with its completion, or a conversation.
import type {ChatMessage} from '../tokenizer/chat-template.js';
import {DataError} from '../util/errors.js';
import type {SampleFormat} from './options.js';
import {asText, fault, fieldsOf, type SourceRecord, targetAfter} from './record.js';

/** One document of a source. */
export type Sample =
  | {readonly kind: 'text'; readonly text: string}
  | {readonly kind: 'prompt'; readonly prompt: string; readonly completion: string}
  | {
      readonly kind: 'chat';
      /** Its place, for errors of the chat template. */
      readonly where: string;
      readonly messages: readonly ChatMessage[];
      /** Messages before it are a prompt: no turn among them is learnt. */
      readonly promptLength: number;
    };

type Fields = Readonly<Record<string, unknown>>;

/** The fields that formats look for, in the order they are shown. */
export const SAMPLE_FIELDS: Readonly<Record<Exclude<SampleFormat, 'text'>, readonly string[]>> = {
  chat: ['messages', 'conversations', 'system'],
  prompt: ['prompt', 'completion', 'target', 'instruction', 'input', 'output', 'system', 'history'],
};

/** The format of records with these fields, as TRL and LLaMA-Factory tell it: text unless something else is there. */
export function formatOf(fields: readonly string[]): SampleFormat {
  const has = (...names: string[]): boolean => names.every((name) => fields.includes(name));
  if (has('text')) return 'text';
  if (has('messages') || has('conversations')) return 'chat';
  return has('prompt', 'completion') || has('instruction', 'output') ? 'prompt' : 'text';
}

/**
 * A record's conversation: messages of {role, content}, or turns of {from, value} as ShareGPT has them, by default those in
 * `messages`, else in `conversations`, which a `system` text beside them opens unless they open with one.
 *
 * @throws DataError naming the place if the field holds neither.
 */
export function chatSample(record: SourceRecord, given?: string): Sample {
  const {where} = record;
  const fields = fieldsOf(record);
  const field = given ?? ('conversations' in fields && !('messages' in fields) ? 'conversations' : 'messages');
  const messages = messagesOf(where, field, fields);
  const {system} = fields;
  const isOpen = messages[0]?.role === 'system';
  const opening = typeof system === 'string' && system !== '' && !isOpen ? system : null;
  const all = opening === null ? messages : [{role: 'system', content: opening}, ...messages];
  return {kind: 'chat', where, messages: all, promptLength: 0};
}

/** A record's prompt and what is to follow it. @throws DataError naming the place if it has neither form. */
export function promptSample(record: SourceRecord): Sample {
  const fields = fieldsOf(record);
  const {where} = record;
  if ('instruction' in fields) return instructionSample(where, fields);
  const answer = 'target' in fields && !('completion' in fields) ? 'target' : 'completion';
  if (Array.isArray(fields.prompt)) {
    const prompt = messagesOf(where, 'prompt', fields);
    const messages = [...prompt, ...messagesOf(where, answer, fields)];
    return {kind: 'chat', where, messages, promptLength: prompt.length};
  }
  const [prompt, text] = ['prompt', answer].map((name) => asText(where, name, fields, PROMPT_HINT)) as [string, string];
  return {kind: 'prompt', prompt, completion: answer === 'target' ? targetAfter(prompt, text) : text};
}

const PROMPT_HINT =
  'A record of `format: prompt` has `prompt` and `completion` (or `target`), or `instruction`, perhaps `input`, and `output`.';

/** The form of Alpaca as LLaMA-Factory reads it: instruction and input are what the user says. */
function instructionSample(where: string, fields: Fields): Sample {
  const optional = (name: string): string => (fields[name] == null ? '' : asText(where, name, fields, PROMPT_HINT));
  const required = (name: string): string => asText(where, name, fields, PROMPT_HINT);
  const query = [required('instruction'), optional('input')].filter((text) => text !== '').join('\n');
  const system = optional('system');
  const messages = [
    ...(system === '' ? [] : [{role: 'system', content: system}]),
    ...historyOf(where, fields),
    {role: 'user', content: query},
    {role: 'assistant', content: required('output')},
  ];
  return {kind: 'chat', where, messages, promptLength: 0};
}

function historyOf(where: string, fields: Fields): ChatMessage[] {
  const {history} = fields;
  if (history == null) return [];
  const isPair = (turn: unknown): turn is [string, string] =>
    Array.isArray(turn) && turn.length === 2 && turn.every((text) => typeof text === 'string');
  if (Array.isArray(history) && history.every(isPair)) {
    return history.flatMap(([query, answer]) => [
      {role: 'user', content: query},
      {role: 'assistant', content: answer},
    ]);
  }
  throw new DataError(`${where}: ${fault('history', history, 'is no list of [query, answer]', fields)}`, {
    hint: 'Correct the record or leave `history` out.',
  });
}

function messagesOf(where: string, field: string, fields: Fields): ChatMessage[] {
  const value = fields[field];
  const hint =
    'Messages are a list of {"role": "user" or "assistant" or "system", "content": "..."}, or of {"from": "human" or "gpt" or "system", "value": "..."}.';
  if (!Array.isArray(value) || value.length === 0) {
    throw new DataError(`${where}: ${fault(field, value, 'is no list of messages', fields)}`, {hint});
  }
  return value.map((message: unknown, i) => {
    if (isMessage(message)) return message;
    if (isTurn(message)) return fromTurn(message, `${where}: ${field}[${i}]`);
    throw new DataError(`${where}: ${field}[${i}] is no message: it needs \`role\` and \`content\`, both text.`, {
      hint,
    });
  });
}

function isMessage(value: unknown): value is ChatMessage {
  if (value === null || typeof value !== 'object') return false;
  return 'role' in value && typeof value.role === 'string' && 'content' in value && typeof value.content === 'string';
}

/** A turn of ShareGPT. */
interface Turn {
  readonly from: string;
  readonly value: string;
}

function isTurn(value: unknown): value is Turn {
  if (value === null || typeof value !== 'object') return false;
  return 'from' in value && typeof value.from === 'string' && 'value' in value && typeof value.value === 'string';
}

/** Who speaks, as ShareGPT and those who copied it call them. */
const SPEAKERS: ReadonlyMap<string, string> = new Map([
  ['human', 'user'],
  ['user', 'user'],
  ['gpt', 'assistant'],
  ['assistant', 'assistant'],
  ['system', 'system'],
]);

/** @throws DataError naming the place and the speakers there are: calls of tools have no role in every chat template. */
function fromTurn({from, value}: Turn, where: string): ChatMessage {
  const role = SPEAKERS.get(from);
  if (role !== undefined) return {role, content: value};
  throw new DataError(`${where}: nobody is called "${from}" here; known are ${[...SPEAKERS.keys()].join(', ')}.`, {
    hint: 'Rename the speaker, leave the record out, or write it as messages of {role, content}.',
  });
}
