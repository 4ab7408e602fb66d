// The `profile` section of a config, and what an arm says about how its mixture of experts is made.
import {z} from 'zod';
import {PAPER_RULE} from './allocation.js';
import {diveSchema, isDive} from './dive-options.js';
import {choosable} from './option-checks.js';
import {isUpcycle, upcycleSchema} from './upcycle-options.js';

/** λ of the refit of down projections. */
const REFIT_WEIGHT = 0.5;

const countFields = {
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
  pad: z
    .boolean()
    .default(false)
    .describe(
      'Where experts + shared do not divide the width of the dense FFN, append neurons of zeros up to the next multiple; they change nothing that it computes.',
    ),
};

const repair = (fallback: 'none' | 'refit') =>
  z
    .enum(['none', 'refit'])
    .default(fallback)
    .describe(
      'refit fits the down projections to what the dense model gives on the calibration text of `profile`, layer by layer, in closed form.',
    );

const regroup = (fallback: number) =>
  z
    .int()
    .min(0)
    .default(fallback)
    .describe(
      'How often the neurons of the routed experts are dealt out anew: a ridge router is fitted to the experts that there are, and each neuron goes to the expert during whose choice it is most active on the calibration text of `profile`.',
    );

const repairFields = {
  repair: repair('none'),
  repairWeight: z
    .number()
    .positive()
    .default(REFIT_WEIGHT)
    .describe('How much refit holds to the dense weights, as a share of the mean square of the activations.'),
};

/** What can score the experts of a split; the field of the schema says what each is. */
const ROUTERS = ['gate-mean', 'representative', 'ridge', 'centroid', 'random', 'mlp'] as const;

/** One of {@link ROUTERS}. */
export type RouterName = (typeof ROUTERS)[number];

/** What every split says; `router` and `weights` by the default of the method. */
const cutFields = (router: RouterName, weights: 'score' | 'one') => ({
  ...countFields,
  router: z
    .enum(ROUTERS)
    .default(router)
    .describe(
      'What scores an expert. gate-mean: the mean of its gate rows. representative: the activation of its most typical neuron (CMoE). ridge: the ridge regression of its activity on the input of the FFN. centroid: the k-means centre of FFN inputs on which it is most active (LLaMA-MoE v2). random: a row drawn at random, the control. mlp: two layers with a tanh between them, drawn at random, to be trained (LLaMA-MoE v1).',
    ),
  weights: z
    .enum(['score', 'one'])
    .default(weights)
    .describe(
      'What the result of a chosen expert is multiplied with: its softmax score, to be trained, or 1, for use without training.',
    ),
  outputScale: z
    .enum(['none', 'match'])
    .default('none')
    .describe(
      'match scales the routed sum of each layer so that its norm on the calibration text of `profile` is that of the dense part.',
    ),
  regroup: regroup(0),
  ...repairFields,
});

const allocation = (fallback: 'uniform' | 'sensitivity') =>
  z
    .enum(['uniform', 'sensitivity'])
    .default(fallback)
    .describe(
      'uniform: the same counts in every layer. sensitivity: more active experts where the loss feels them more, as many over all layers.',
    );

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
      'Neurons that are marked most often are shared, the others clustered by the tokens that mark them (CMoE, arXiv 2502.04416). S3A3E8 is experts 5, shared 3, topK 3.',
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

/** Routers that are there before anything is fitted, so that the routed part can be measured on the dense model. */
const SCALABLE: readonly RouterName[] = ['gate-mean', 'random', 'mlp'];

interface Fitted {
  readonly router: RouterName;
  readonly weights: string;
  readonly outputScale: string;
  readonly repair: string;
  readonly regroup: number;
}

const fitted = {
  check: ({router, weights, outputScale, repair, regroup}: Fitted): boolean =>
    (router !== 'ridge' || weights === 'one') &&
    (router !== 'representative' || regroup === 0) &&
    (outputScale === 'none' || (SCALABLE.includes(router) && weights === 'score' && repair === 'none')),
  says: {
    error:
      'router ridge needs weights one; router representative needs regroup 0; outputScale match needs router gate-mean, random or mlp, weights score and repair none. Change one of them.',
    path: ['router'],
  },
};
const orderedAlphas = {
  check: ({alphaMin, alphaMax}: {alphaMin: number; alphaMax: number}): boolean => alphaMin <= alphaMax,
  says: {error: 'alphaMin must be at most alphaMax. Swap them or change one.', path: ['alphaMin']},
};

/** How the FFNs of a dense model are split; counts are in units of one expert. */
export const splitSchema = z.discriminatedUnion('method', [
  z.discriminatedUnion(
    'allocation',
    [
      uniformSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
      adaptiveSchema
        .refine(choosable.check, choosable.says)
        .refine(fitted.check, fitted.says)
        .refine(orderedAlphas.check, orderedAlphas.says),
      sensitivitySchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
    ],
    {error: 'allocation must be uniform, adaptive or sensitivity.'},
  ),
  cmoeSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  weaveSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  moeficationSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  llamaMoeSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  randomSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  contiguousSchema.refine(choosable.check, choosable.says).refine(fitted.check, fitted.says),
  allSharedSchema.refine(choosable.check, choosable.says),
]);

/** How a mixture of experts is made out of dense models. */
export const methodSchema = z.discriminatedUnion('method', [splitSchema, upcycleSchema, diveSchema]);

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

/** One method and its settings, defaults filled in. */
export type MethodOptions = z.output<typeof methodSchema>;

/** The methods that split a dense FFN, as against those that copy it. */
export type SplitOptions = z.output<typeof splitSchema>;

/** Whether a method splits a dense FFN. */
export function isSplit(options: MethodOptions): options is SplitOptions {
  return !isUpcycle(options) && !isDive(options);
}
