import {z} from 'zod';
import {quantity} from '../util/quantity.js';

/** What the records of a source are. */
export const SAMPLE_FORMATS = ['text', 'chat', 'prompt'] as const;

export type SampleFormat = (typeof SAMPLE_FORMATS)[number];

const pathSchema = z.string().min(1);

const sourceSchema = z
  .strictObject({
    name: z
      .string()
      .regex(/^[A-Za-z0-9][\w.-]*$/, 'expected letters, digits, dots, dashes and underscores; it becomes a file name')
      .describe('Name of the source in logs, tables and shard files.'),
    path: z
      .union([pathSchema, z.array(pathSchema).min(1)])
      .describe(
        'A .txt, .jsonl or .parquet file, a folder of them, a glob (texts/**/*.jsonl) or a list of these; or shards: a .arrow file or a prepared folder.',
      ),
    weight: z.number().positive().default(1).describe('Share of training rows, relative to the other sources.'),
    field: z
      .string()
      .min(1)
      .optional()
      .describe(
        'Field or column that holds the text, or the messages of `format: chat`. Default: `text`, else `prompt` and `target` joined; `messages`, else `conversations`.',
      ),
    format: z
      .enum(['auto', ...SAMPLE_FORMATS])
      .default('auto')
      .describe(
        'What a record is. text: a document. chat: `messages` of {role, content}, or `conversations` of {from, value} as ShareGPT has them, written with the chat template of the model. prompt: `prompt` and `completion` (or `target`), written as they are, or with the template if they are lists of messages; or `instruction`, `input`, `output` (and `system`, `history`), written with the template. auto: by the fields of the first record; `text`, or `prompt` with `target`, is text.',
      ),
    loss: z
      .enum(['completion', 'all'])
      .optional()
      .describe(
        'Which tokens of conversations and prompts are learnt: those of the assistant and of completions, or all. Default: completion. Nothing to say for text.',
      ),
    licence: z.string().default('unknown').describe('Licence of the text, kept in the shards.'),
  })
  .describe('One kind of text.');

/** The `data` section of a config: what is trained on and how it is packed. */
export const dataSchema = z
  .strictObject({
    sequenceLength: quantity.default(512).describe('Tokens predicted in a row; a row holds one more.'),
    sources: z
      .array(sourceSchema)
      .min(1)
      .refine(haveUniqueNames, 'two sources have the same name')
      .describe('Kinds of text, mixed by weight.'),
    validation: z
      .strictObject({
        share: z
          .number()
          .min(0)
          .max(0.5)
          .default(0.05)
          .describe('Share of documents kept for validation, chosen by the hash of their text; 0 for none.'),
      })
      .prefault({})
      .describe('Which documents are never trained on.'),
    boundaries: z
      .enum(['keep', 'ignore'])
      .default('ignore')
      .describe('Whether attention and positions stop at the end of a document inside a row (keep) or not (ignore).'),
    damaged: z
      .enum(['stop', 'skip'])
      .default('stop')
      .describe(
        'What becomes of a training row that cannot be read, or holds ids outside the vocabulary. stop: the run ends, after saying which. skip: it is left out, named and counted in the log, and the next row of its source stands in for it; a file without its end cannot be opened by either.',
      ),
    special: z
      .enum(['recognised', 'text'])
      .default('recognised')
      .describe(
        'Whether special tokens written out in a text become their ids or are read as plain characters; those of a chat template always become their ids.',
      ),
  })
  .describe('Text: where it is, how it is packed into rows, what is kept for validation.');

export type DataOptions = z.infer<typeof dataSchema>;
export type SourceOptions = DataOptions['sources'][number];

function haveUniqueNames(sources: readonly {readonly name: string}[]): boolean {
  return new Set(sources.map(({name}) => name)).size === sources.length;
}
