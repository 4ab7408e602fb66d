import {z} from 'zod';
import {quantity} from '../util/quantity.js';

const textSchema = z.strictObject({
  name: z.string().min(1).describe('Name of the text in the table.'),
  path: z.string().min(1).describe('A .txt, .jsonl or .parquet file, or a folder of them.'),
  field: z.string().min(1).optional().describe('Field or column that holds the text.'),
});

/** The `conversions` section: how the arms are compared as they are, without training. */
export const conversionsSchema = z
  .strictObject({
    sparsities: z
      .array(z.number().gt(0).lt(1))
      .min(1)
      .refine((sparsities) => new Set(sparsities).size === sparsities.length, 'a sparsity stands twice')
      .default([0.25, 0.5])
      .describe(
        'Shares of the FFN neurons that are idle for a token. The counts of an arm say how many chunks there are and which share of the active ones is shared.',
      ),
    seeds: z
      .array(z.int().min(0))
      .min(1)
      .refine((seeds) => new Set(seeds).size === seeds.length, 'a seed stands twice')
      .default([1, 2, 3])
      .describe('Seeds of the methods that draw lots.'),
    texts: z
      .array(textSchema)
      .refine((texts) => new Set(texts.map(({name}) => name)).size === texts.length, 'two texts have the same name')
      .default([])
      .describe(
        'Held-out texts, a column each: never calibrate or tune on them. Without any, the validation part of each source.',
      ),
    oracle: z
      .boolean()
      .default(false)
      .describe(
        'Also measure every mixture with the experts of the largest Σ|h| in place of those that its router chooses: what a router that foresees them all would give.',
      ),
    windowTokens: quantity
      .refine((count) => count > 1, 'must be at least 2: the first token is not foretold')
      .default(512)
      .describe('Tokens a model sees at once.'),
    maxTokens: quantity
      .default(8192)
      .describe('Tokens of each text that are measured, in windows spread evenly over it.'),
  })
  .describe('What `downcycle conversions` measures: perplexity of every arm right after conversion.');
