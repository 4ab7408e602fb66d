import {z} from 'zod';
import {dataSchema} from '../data/options.js';
import {methodSchema} from '../downcycle/options.js';
import {profileSchema} from '../downcycle/profile-options.js';
import {engineSchema} from '../engine/options.js';
import {reportSchema} from '../report/options.js';
import {trainSchema} from '../train/options.js';
import {conversionsSchema} from './conversions.js';

const folderName = z
  .string()
  .max(100)
  .regex(/^[A-Za-z0-9][\w.-]*$/, 'expected letters, digits, dots, dashes and underscores; it becomes a folder name');

/** Folders that an experiment has beside those of its arms. */
const TAKEN = ['conversions', 'model', 'profile', 'report', 'shards', 'start'];
const armName = folderName.refine((name) => !TAKEN.includes(name), {
  error: `cannot be the name of an arm, it is a folder of every experiment; so are ${TAKEN.join(', ')}`,
});

const scratchSchema = z
  .strictObject({
    like: z.string().describe('Name of the arm whose architecture is taken.'),
    init: z.literal('scratch').default('scratch').describe('All weights are drawn at random, the embedding too.'),
  })
  .describe('Control: the architecture of another arm, without what the dense model had learnt.');

/** One arm of a comparison: how its model is made before training. */
const armSchema = z.union([methodSchema, scratchSchema]);

/** One arm, defaults filled in. */
export type ArmOptions = z.output<typeof armSchema>;

const fields = z.strictObject({
  name: folderName.default('experiment').describe('Name of the experiment; its runs lie in checkpoints/<name>/.'),
  seed: z
    .int()
    .min(0)
    .default(0)
    .describe('From it come all random numbers: order of the text, random weights, random splits.'),
  engine: engineSchema.prefault({}).describe('What computes, and how precisely.'),
  model: z
    .string()
    .min(1)
    .describe(
      'The dense model: a Hugging Face folder, a GGUF file, or a name on the hub: org/name or org/name@revision.',
    ),
  data: dataSchema,
  profile: profileSchema.prefault({}).describe('Calibration text on which FFN neurons are watched.'),
  train: trainSchema.prefault({}),
  arms: z
    .record(armName, armSchema)
    .default({})
    .describe('Starting points, each under a name of your choice; all are trained on the same token stream.'),
  arm: z.string().optional().describe('The arm that `train` and `convert` take when no other is named.'),
  conversions: conversionsSchema.prefault({}),
  report: reportSchema.prefault({}),
});

/** A whole config file. Relative paths in it are resolved against the working directory. */
export const configSchema = fields
  .superRefine(({arms, arm}, context) => {
    for (const [name, options] of Object.entries(arms)) {
      const fault = 'like' in options ? likeFault(options.like, name, arms) : null;
      if (fault) context.addIssue({code: 'custom', path: ['arms', name, 'like'], message: fault});
    }
    if (arm !== undefined && !Object.hasOwn(arms, arm))
      context.addIssue({code: 'custom', path: ['arm'], message: missingArm(arm, Object.keys(arms))});
  })
  .describe('A downcycle experiment. Relative paths are resolved against the working directory.');

/** A checked config, defaults filled in. */
export type Config = z.output<typeof configSchema>;

/** A config as a person writes it, defaults left out. */
export type ConfigInput = z.input<typeof configSchema>;

/** Why an arm cannot take its architecture from arm `like`; null if it can. */
function likeFault(like: string, name: string, arms: Readonly<Record<string, ArmOptions>>): string | null {
  const others = Object.keys(arms).filter((other) => other !== name);
  const model = like === name || !Object.hasOwn(arms, like) ? undefined : arms[like];
  if (!model) return missingArm(like, others);
  return 'like' in model ? `arm ${like} takes its architecture from another arm; name ${model.like} instead` : null;
}

/** What to say when `arm` is not among `arms`. */
export function missingArm(arm: string, arms: readonly string[]): string {
  return arms.length > 0
    ? `there is no arm ${arm} to take; there are ${arms.join(', ')}`
    : `there is no arm ${arm} to take, nor any other`;
}
