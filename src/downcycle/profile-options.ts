// The `profile` section of a config.
import {z} from 'zod';

/** Which calibration text neurons are watched on, and how their spread is read. */
export const profileSchema = z.strictObject({
  samplesPerTask: z.int().min(1).default(5).describe('Calibration samples of each task.'),
  tokensPerSample: z.int().min(1).default(128).describe('Tokens of each calibration sample.'),
  task: z
    .union([
      z.literal('source'),
      z
        .strictObject({field: z.string().min(1).describe('Field or column whose value names the task of a record.')})
        .describe('Tasks by a field of records.'),
    ])
    .default('source')
    .describe(
      'What a task is. source: each data source is one; a sample is the beginning of a packed row. {field: domain}: each value of a field of the .jsonl and .parquet sources is one, and other sources have none; a sample begins with a training document.',
    ),
  cv: z
    .enum(['tasks', 'samples'])
    .default('tasks')
    .describe('Coefficient of variation over the means of tasks, or over all samples. The allocation moves with it.'),
  markers: z
    .strictObject({
      count: z.int().min(1).default(10).describe('Neurons that are marked for each token: those of the largest |h|.'),
      of: z
        .enum(['normalised', 'plain'])
        .default('normalised')
        .describe(
          'h of inputs and weight rows of length one, as in the published code of CMoE, or h as it is, as in its paper.',
        ),
    })
    .prefault({})
    .describe('Activation markers (CMoE): which neurons answer each token.'),
  predictors: z
    .boolean()
    .default(false)
    .describe('Also fit how much of each neuron a linear router can foresee, for `weave`.'),
  gradients: z
    .boolean()
    .default(false)
    .describe('Also run backwards, for the methods that ask what the loss says of each neuron.'),
});

/** Calibration settings with their defaults filled in. */
export type ProfileOptions = z.output<typeof profileSchema>;
