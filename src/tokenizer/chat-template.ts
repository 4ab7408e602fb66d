import {Template} from '@huggingface/jinja';
import type {TokenizerFiles} from '../format/tokenizer-files.js';

/** One turn of a conversation; templates may use other keys than these, too. */
export interface ChatMessage {
  /** `system`, `user`, `assistant` or what else the template knows. */
  readonly role: string;
  readonly content: string;
}

/** How a model writes conversations, as its `chat_template` says. */
export interface ChatTemplate {
  /** The template itself, in Jinja. */
  readonly source: string;
  /**
   * The text of a conversation, special tokens written out. With `opensAnswer` it ends where the assistant would begin.
   *
   * @throws Error if the template is broken or refuses the conversation (`raise_exception`).
   */
  render(messages: readonly ChatMessage[], options?: {readonly opensAnswer?: boolean}): string;
}

/** `chat_template` of tokenizer_config.json: one template, or several with names. */
export type ChatTemplateSetting =
  | string
  | readonly {readonly name: string; readonly template: string}[]
  | null
  | undefined;

/** The template of a model: chat_template.jinja, else the setting, of several the one named `default`. Null if there is none. */
export async function readTemplateSource(files: TokenizerFiles, setting: ChatTemplateSetting): Promise<string | null> {
  const file = await files.read('chat_template.jinja');
  if (file) return file.toString('utf8');
  if (setting == null || typeof setting === 'string') return setting ?? null;
  return setting.find(({name}) => name === 'default')?.template ?? null;
}

/** The library always gives templates a clock. The line end goes with the block, so that the template begins a line as before. */
const NO_CLOCK = '{% set strftime_now = undefined %}\n';

/**
 * A template that renders as `apply_chat_template` of transformers does, without tools or documents.
 *
 * Without a clock, so that a text does not depend on the day: templates that ask for one then write a date of their own.
 * @param tokens special tokens by their names in templates, `bos_token` and the like.
 */
export function createChatTemplate(source: string, tokens: Readonly<Record<string, string>>): ChatTemplate {
  let template: Template | null = null; // parsed when first needed: most models are never asked
  return {
    source,
    render: (messages, {opensAnswer = false} = {}) => {
      template ??= new Template(`${NO_CLOCK}${source}`);
      return template.render({...tokens, messages, add_generation_prompt: opensAnswer});
    },
  };
}
