import {z} from 'zod';
import {quantity} from '../util/quantity.js';
import {balanceSchema} from './balance-options.js';
import {batchSchema} from './batch-size.js';
import {emaSchema} from './ema.js';
import {finetuneSchema} from './finetune.js';
import {optimizerSchema} from './optimizer/options.js';
import {routingSchema} from './routing/options.js';
import {decaySteps, scheduleSchema} from './schedule.js';
import {spikeSchema} from './spike.js';

const validationSchema = z
  .strictObject({
    every: z
      .int()
      .min(1)
      .default(50)
      .describe('Steps between two validations; the first stands before step 1, the last after the last step.'),
    maxRows: z
      .int()
      .min(1)
      .default(64)
      .describe(
        'Rows of each source that are measured: the same ones each time, spread evenly over its held-out text.',
      ),
  })
  .describe('When the loss on held-out text is measured, and on how much of it.');

const checkpointSchema = z
  .strictObject({
    every: z
      .int()
      .min(0)
      .default(100)
      .describe('Steps between two checkpoints; 0 for only the one after the last step, which is made in any case.'),
    keep: z.int().min(1).default(2).describe('Checkpoints kept; older ones go once a new one is whole.'),
    best: z
      .boolean()
      .default(false)
      .describe(
        'Saves after each validation with a lower loss than all before it, the start included, and keeps that checkpoint besides the newest; best.json names it.',
      ),
    optimizer: z
      .boolean()
      .default(true)
      .describe(
        'Whether checkpoints on the way hold what the optimizer keeps. Without it they are light, and a run that is killed cannot go on from them; the last checkpoint, also of a run that was stopped, is always whole.',
      ),
  })
  .describe('What a run that was stopped goes on from.');

const distillSchema = z
  .strictObject({
    from: z
      .string()
      .min(1)
      .describe(
        'The teacher, a folder or a name on the hub: a model of the same tokenizer, the dense parent for example.',
      ),
    weight: z
      .number()
      .gt(0)
      .max(1)
      .default(0.5)
      .describe('Share of the teacher in the loss; the labels have the rest.'),
    temperature: z
      .number()
      .positive()
      .default(1)
      .describe('What the logits of both are divided by; the divergence counts with its square.'),
    top: z
      .int()
      .min(1)
      .optional()
      .describe(
        'Learn only from so many of its likeliest words at each place, all others counting as one, and keep them beside the packed text: rows that were asked about before, in an earlier epoch or another run, are not asked again, though the folder must be there. 8 bytes a word and place.',
      ),
  })
  .describe(
    'Learn from the words that another model foresees, besides the text: (1 - weight) x loss + weight x temperature² x KL (arXiv 1503.02531). Without `top` the teacher runs beside the model in every step.',
  );

const capacitySchema = z
  .union([
    z.literal('dropless').describe('No token loses an expert.'),
    z.strictObject({
      factor: z
        .number()
        .positive()
        .describe('Rows of an expert, as a multiple of an even share; tokens beyond it lose that expert.'),
    }),
  ])
  .describe('Whether experts have room for all tokens that choose them.');

/** The `train` section of a config: one run of the trainer. The seed stands at the root of the config. */
export const trainSchema = z
  .strictObject({
    batch: batchSchema.prefault({}),
    steps: quantity.default(1000).describe('Optimizer steps.'),
    optimizer: optimizerSchema.prefault({}),
    schedule: scheduleSchema.prefault({}),
    balance: balanceSchema.prefault({}),
    routing: routingSchema.prefault({}),
    finetune: finetuneSchema.prefault({}),
    distill: distillSchema.optional(),
    ema: emaSchema.optional(),
    spike: spikeSchema.prefault({policy: 'none'}),
    validation: validationSchema.prefault({}),
    checkpoint: checkpointSchema.prefault({}),
    patience: z
      .int()
      .min(1)
      .optional()
      .describe('Validations in a row without a lower loss after which the run ends early; without it, it never does.'),
    capacity: capacitySchema.default('dropless'),
    recompute: z
      .enum(['none', 'layer'])
      .default('none')
      .describe(
        'What the backward pass computes again instead of keeping it. layer: each layer from its input, which takes the memory of one layer instead of all, and the time of one more forward pass, about a third of a step.',
      ),
  })
  .refine(({schedule, steps}) => !(steps > 0) || schedule.warmup < steps, {
    error: 'schedule.warmup must be less than steps. Lower it, or train for more steps.',
    path: ['schedule', 'warmup'],
  })
  .refine(
    ({schedule, steps}) =>
      schedule.kind !== 'wsd' || !(steps > 0) || schedule.warmup + decaySteps(schedule, steps) <= steps,
    {
      error: 'schedule.warmup and schedule.decay together must be at most steps. Lower one, or train for more steps.',
      path: ['schedule', 'decay'],
    },
  )
  .refine(({batch, steps}) => !(steps > 0) || (batch.growth.at(-1)?.until ?? 0) < steps, {
    error: 'the last batch.growth.until must be less than steps. Lower it, or train for more steps.',
    path: ['batch', 'growth'],
  })
  .refine(({schedule, optimizer: {lr}}) => schedule.kind === 'constant' || !(lr > 0) || schedule.final <= lr, {
    error: 'schedule.final must be at most optimizer.lr: the rate falls from lr to final. Lower it, or raise lr.',
    path: ['schedule', 'final'],
  })
  .describe('Training: batch, optimizer, schedule, balance of experts, validation, checkpoints.');

/** A checked `train` section, defaults filled in. */
export type TrainOptions = z.output<typeof trainSchema>;

/** The same with everything optional, as a caller writes it. */
export type TrainInput = z.input<typeof trainSchema>;
