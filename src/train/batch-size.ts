import {z} from 'zod';

const passes = z.int().min(1);

/** How much text a step learns from, and how that grows. */
export const batchSchema = z
  .strictObject({
    sequences: z.int().min(1).default(16).describe('Rows of one forward and backward pass.'),
    accumulate: passes
      .default(1)
      .describe('Passes whose gradients are averaged into one optimizer step: more rows for the memory of one pass.'),
    growth: z
      .array(
        z.strictObject({
          until: z.int().min(1).describe('Last step with so many passes.'),
          accumulate: passes.describe('Passes up to that step.'),
        }),
      )
      .refine(isAscending, 'each `until` must be above the one before it')
      .default([])
      .describe(
        'Other numbers of passes at the beginning, for example [{until: 100, accumulate: 1}, {until: 300, accumulate: 2}]; after the last of them it is `accumulate`. The rows come in the same order whatever the size.',
      ),
  })
  .describe('Rows of text an optimizer step learns from: sequences x accumulate.');

/** A checked `train.batch`. */
export type BatchOptions = z.output<typeof batchSchema>;

/** Passes of step t, counted from 1. */
export function passesOf({accumulate, growth}: BatchOptions, t: number): number {
  return growth.find(({until}) => t <= until)?.accumulate ?? accumulate;
}

/** Whether any step has several passes, so that gradients must be summed. */
export function accumulates({accumulate, growth}: BatchOptions): boolean {
  return [accumulate, ...growth.map((stage) => stage.accumulate)].some((count) => count > 1);
}

function isAscending(stages: readonly {readonly until: number}[]): boolean {
  return stages.every(({until}, i) => i === 0 || until > (stages[i - 1]?.until ?? 0));
}
