// The `profile` section of a config, and what an arm says about how its mixture of experts is made.
import {z} from 'zod';
import {PAPER_RULE} from './allocation.js';
import {choosable} from './option-checks.js';
import {type UpcycleMethod, upcycleSchema} from './upcycle-options.js';

const cutFields = {
  experts: z
    .int()
    .min(1)
    .describe(
      'Routed experts. experts + shared chunks of equal width make up the dense FFN, so their sum must divide its width.',
    ),
  shared: z
    .int()
    .min(0)
    .default(0)
    .describe('Shared part, in units of one expert: 2 is one shared expert twice as wide as a routed one.'),
  topK: z.int().min(1).describe('Routed experts each token passes through; the shared part comes on top.'),
  outputScale: z
    .enum(['none', 'match'])
    .default('none')
    .describe(
      'match scales the routed sum of each layer so that its norm on the calibration text of `profile` is that of the dense part.',
    ),
};

const expertweaverFields = {
  method: z
    .literal('expertweaver')
    .describe('Universal neurons are shared, the others clustered by the tasks they react to (arXiv 2602.15521).'),
  ...cutFields,
  sharedBy: z
    .enum(['mean-abs', 'low-cv'])
    .default('mean-abs')
    .describe('Which neurons are shared: the largest |mean activation|, or the least coefficient of variation.'),
  assignment: z
    .enum(['optimal', 'greedy'])
    .default('optimal')
    .describe(
      'How clusters are filled: at the least total distance, or in id order as in the paper (14 to 35% dearer).',
    ),
  standardise: z
    .boolean()
    .default(true)
    .describe(
      'Bring each neuron profile to mean 0 and std 1 before clustering, so that its shape counts and not its size.',
    ),
};

const uniformSchema = z.strictObject({
  ...expertweaverFields,
  allocation: z
    .literal('uniform')
    .optional()
    .default('uniform')
    .describe(
      'The same counts in every layer (downcycling). E64-A14-S2 of the paper is experts 62, shared 2, topK 14.',
    ),
});

const adaptiveSchema = z.strictObject({
  ...expertweaverFields,
  allocation: z
    .literal('adaptive')
    .describe(
      'Layers of universal neurons share more (training-free use): every layer has experts + shared chunks, of which shared + topK are active.',
    ),
  cvThreshold: z
    .number()
    .min(0)
    .default(PAPER_RULE.cvThreshold)
    .describe('A neuron with a larger coefficient of variation is specialised.'),
  alphaMin: z
    .number()
    .min(0)
    .max(1)
    .default(PAPER_RULE.alphaMin)
    .describe('Shared ratio of a layer whose neurons are all specialised.'),
  alphaMax: z
    .number()
    .min(0)
    .max(1)
    .default(PAPER_RULE.alphaMax)
    .describe('Shared ratio of a layer without specialised neurons.'),
});

const randomSchema = z.strictObject({
  method: z.literal('random').describe('Control: neurons go to the shared and the routed experts by lot.'),
  ...cutFields,
});

const contiguousSchema = z.strictObject({
  method: z.literal('contiguous').describe('Control: neurons are cut in the order they have in the dense model.'),
  ...cutFields,
});

const orderedAlphas = {
  check: ({alphaMin, alphaMax}: {alphaMin: number; alphaMax: number}): boolean => alphaMin <= alphaMax,
  says: {error: 'alphaMin must be at most alphaMax. Swap them or change one.', path: ['alphaMin']},
};

/** How a mixture of experts is made out of dense models; counts are in units of one expert. */
export const methodSchema = z.discriminatedUnion('method', [
  z.discriminatedUnion(
    'allocation',
    [
      uniformSchema.refine(choosable.check, choosable.says),
      adaptiveSchema.refine(choosable.check, choosable.says).refine(orderedAlphas.check, orderedAlphas.says),
    ],
    {error: 'allocation must be uniform or adaptive.'},
  ),
  randomSchema.refine(choosable.check, choosable.says),
  contiguousSchema.refine(choosable.check, choosable.says),
  upcycleSchema,
]);

/** Which calibration text neurons are watched on, and how their spread is read. */
export const profileSchema = z.strictObject({
  samplesPerTask: z.int().min(1).default(5).describe('Calibration samples of each task.'),
  tokensPerSample: z.int().min(1).default(128).describe('Tokens of each calibration sample.'),
  task: z.literal('source').default('source').describe('What a task is: each data source is one.'),
  cv: z
    .enum(['tasks', 'samples'])
    .default('tasks')
    .describe('Coefficient of variation over the means of tasks, or over all samples. The allocation moves with it.'),
});

/** Calibration settings with their defaults filled in. */
export type ProfileOptions = z.output<typeof profileSchema>;

/** One method and its settings, defaults filled in. */
export type MethodOptions = z.output<typeof methodSchema>;

/** The methods that split a dense FFN, as against those that copy it. */
export type SplitOptions = Exclude<MethodOptions, UpcycleMethod>;
