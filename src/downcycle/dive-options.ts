// What an arm says about how a mixture of experts is made out of pruned copies of a dense FFN.
import {z} from 'zod';
import {choosable} from './option-checks.js';

/** How pruned copies of a dense FFN become a mixture of experts (DIVE, arXiv 2506.09351). */
export const diveSchema = z
  .strictObject({
    method: z
      .literal('dive')
      .describe(
        'Every expert is the dense FFN pruned on the text of tasks that go together, with a bias for what it lacks; a neuron may be in several experts, or in none (DIVE, arXiv 2506.09351).',
      ),
    experts: z
      .int()
      .min(1)
      .describe('Experts, one for each cluster of tasks; at most as many as there are tasks of `profile.task`.'),
    topK: z.int().min(1).describe('Experts each token passes through.'),
    keep: z
      .number()
      .gt(0)
      .max(1)
      .default(0.5)
      .describe('Share of the neurons that each expert keeps; the paper has 0.5 with topK 1, and 0.25 with topK 2.'),
    renormalise: z
      .boolean()
      .default(true)
      .describe(
        'Divide the weights of the chosen experts by their sum, as in the published code: softmax over the chosen. With topK 1 the weight is always 1 then, and the language-model loss says nothing to the router.',
      ),
  })
  .refine(choosable.check, choosable.says);

/** The settings of DIVE, defaults filled in. */
export type DiveOptions = z.output<typeof diveSchema>;

/** Whether a method makes experts by pruning. */
export function isDive(options: {readonly method: string}): options is DiveOptions {
  return options.method === 'dive';
}
