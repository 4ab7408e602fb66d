// What an arm of a config says about how its mixture of experts is made.
import {z} from 'zod';
import {PAPER_RULE} from './allocation.js';
import {diveSchema, isDive} from './dive-options.js';
import {choosable} from './option-checks.js';
import {
  allocation,
  countFields,
  cutFields,
  regroup,
  repair,
  repairFields,
  requireFittable,
  requireRepair,
} from './split-fields.js';
import {isUpcycle, upcycleSchema} from './upcycle-options.js';

const expertweaverFields = {
  method: z
    .literal('expertweaver')
    .describe('Universal neurons are shared, the others clustered by the tasks they react to (arXiv 2602.15521).'),
  ...cutFields('gate-mean', 'score'),
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

const sensitivitySchema = z.strictObject({
  ...expertweaverFields,
  allocation: z
    .literal('sensitivity')
    .describe('More active experts where the loss feels them more, as many over all layers.'),
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
  ...cutFields('gate-mean', 'score'),
  allocation: allocation('uniform'),
});

const contiguousSchema = z.strictObject({
  method: z.literal('contiguous').describe('Control: neurons are cut in the order they have in the dense model.'),
  ...cutFields('gate-mean', 'score'),
  allocation: allocation('uniform'),
});

const allSharedSchema = z.strictObject({
  method: z
    .literal('all-shared')
    .describe(
      'Control: static pruning to the shared + topK chunks of most use; the same neurons run for every token, and the rest is gone.',
    ),
  ...countFields,
  ...repairFields,
  allocation: allocation('uniform'),
  keepBy: z
    .enum(['mean-abs', 'magnitude', 'variance', 'markers', 'sensitivity'])
    .default('mean-abs')
    .describe(
      'What is of use: |mean gate activation|, mean |h|·|Wd|, variance of h times |Wd|² (FLAP), how often a neuron is marked, or what the loss says.',
    ),
});

const cmoeSchema = z.strictObject({
  method: z
    .literal('cmoe')
    .describe(
      'Neurons that are marked most often are shared, the others clustered by the tokens that mark them (CMoE, arXiv 2502.04416). S3A3E8 is experts 5, shared 3, topK 3. If the model is a mixture of experts already, each of its experts is cut once more.',
    ),
  ...cutFields('representative', 'one'),
  allocation: allocation('uniform'),
});

const weaveSchema = z.strictObject({
  method: z
    .literal('weave')
    .describe(
      'Ours: neurons of the largest mean |h|·|Wd| are shared, the others clustered by what the input foresees of them; routers and down projections are fitted.',
    ),
  ...cutFields('ridge', 'one'),
  allocation: allocation('sensitivity'),
  regroup: regroup(3),
  repair: repair('refit'),
});

const moeficationSchema = z.strictObject({
  method: z
    .literal('moefication')
    .describe(
      'Neurons are clustered by their gate rows, brought to length one (MoEfication, arXiv 2110.01786). A shared part, which the paper has not, is of the largest mean |h|·|Wd|, as in weave.',
    ),
  ...cutFields('gate-mean', 'one'),
  allocation: allocation('uniform'),
});

const llamaMoeSchema = z.strictObject({
  method: z
    .literal('llama-moe')
    .describe('Neurons are cut in one of the ways of LLaMA-MoE (arXiv 2406.16554 and 2411.15708).'),
  ...cutFields('gate-mean', 'one'),
  split: z
    .enum(['random', 'contiguous', 'k-means', 'co-activation', 'importance'])
    .default('random')
    .describe(
      'random: by lot. contiguous: in the order of the dense model. k-means: by gate rows. co-activation: by the tokens that mark them. importance: the most important to the loss are shared, the others dealt out in equal shares of importance. k-means and co-activation share the largest mean |h|·|Wd|.',
    ),
  allocation: allocation('uniform'),
});

const orderedAlphas = {
  check: ({alphaMin, alphaMax}: {alphaMin: number; alphaMax: number}): boolean => alphaMin <= alphaMax,
  says: {error: 'alphaMin must be at most alphaMax. Swap them or change one.', path: ['alphaMin']},
};

/** How the FFNs of a dense model are split; counts are in units of one expert. */
export const splitSchema = z.discriminatedUnion('method', [
  z.discriminatedUnion(
    'allocation',
    [
      uniformSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
      adaptiveSchema
        .refine(choosable.check, choosable.says)
        .superRefine(requireFittable)
        .refine(orderedAlphas.check, orderedAlphas.says),
      sensitivitySchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
    ],
    {error: 'allocation must be uniform, adaptive or sensitivity.'},
  ),
  cmoeSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  weaveSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  moeficationSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  llamaMoeSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  randomSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  contiguousSchema.refine(choosable.check, choosable.says).superRefine(requireFittable),
  allSharedSchema.refine(choosable.check, choosable.says).superRefine(requireRepair),
]);

/** How a mixture of experts is made out of dense models. */
export const methodSchema = z.discriminatedUnion('method', [splitSchema, upcycleSchema, diveSchema]);

/** One method and its settings, defaults filled in. */
export type MethodOptions = z.output<typeof methodSchema>;

/** The methods that split a dense FFN, as against those that copy it. */
export type SplitOptions = z.output<typeof splitSchema>;

/** What cuts the experts of a mixture, too. */
export type CmoeOptions = Extract<SplitOptions, {method: 'cmoe'}>;

/** Whether a method splits a dense FFN. */
export function isSplit(options: MethodOptions): options is SplitOptions {
  return !isUpcycle(options) && !isDive(options);
}

/** Whether the routed part of a split is brought to the size that it had in the dense model. */
export function isScaled(method: SplitOptions): boolean {
  return method.method !== 'all-shared' && method.outputScale === 'match';
}
