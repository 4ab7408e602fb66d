// What an arm says about how a mixture of experts is made out of copies of a dense FFN.
import {z} from 'zod';
import {choosable} from './option-checks.js';

const copyFields = {
  experts: z.int().min(1).describe('Experts; each is as wide as the FFN it is copied from.'),
  topK: z.int().min(1).describe('Experts each token passes through.'),
  from: z
    .string()
    .min(1)
    .optional()
    .describe('Dense model to copy: a folder, or a name on the hub. Without it, the `model` of the config.'),
  renormalise: z
    .boolean()
    .default(true)
    .describe(
      'Divide the weights of the chosen experts by their sum, so that the copies start out equal to the dense model.',
    ),
};
const meanOfChosen = copyFields.renormalise.describe(
  'Divide the weights of the chosen experts by their sum, so that a mean of them stands where the dense FFN stood.',
);

const sparseSchema = z.strictObject({
  method: z
    .literal('sparse-upcycle')
    .describe('Every expert starts as a copy of a dense FFN, the router at random (arXiv 2212.05055).'),
  ...copyFields,
});

const dropSchema = z.strictObject({
  method: z
    .literal('drop-upcycle')
    .describe(
      'Copies of a dense FFN in which a share of the neurons, others in each expert, is drawn anew (Drop-Upcycling, arXiv 2502.19261).',
    ),
  ...copyFields,
  renormalise: meanOfChosen,
  ratio: z
    .number()
    .min(0)
    .max(1)
    .default(0.5)
    .describe('Share of the neurons of each expert that is drawn anew; 0 makes plain copies.'),
});

const noiseSchema = z.strictObject({
  method: z.literal('noise-upcycle').describe('Copies of a dense FFN, each with Gaussian noise of its own.'),
  ...copyFields,
  renormalise: meanOfChosen,
  noise: z
    .number()
    .min(0)
    .default(0.05)
    .describe('Standard deviation of the noise, in units of that of the matrix it is added to; 0 makes plain copies.'),
  ratio: z
    .number()
    .min(0)
    .max(1)
    .default(1)
    .describe(
      'Share of the neurons of each expert that get noise; the baseline of Drop-Upcycling has 0.5, and noise of a fixed 0.02.',
    ),
});

const granularSchema = z.strictObject({
  method: z
    .literal('granular-upcycle')
    .describe(
      'A dense FFN is cut into shards, each copied experts / shards times; the router starts out choosing one copy of each (virtual groups, arXiv 2410.07524).',
    ),
  ...copyFields,
  experts: z.int().min(1).describe('Experts, a multiple of shards; each is as wide as one shard.'),
  shards: z.int().min(1).describe('Parts of equal width that the dense FFN is cut into; they must divide its width.'),
  renormalise: z
    .boolean()
    .default(true)
    .describe(
      'Divide the weights of the chosen experts by their sum: with topK a multiple of shards the model starts out equal to the dense one. Without it only a router that scores all experts alike would do that; one drawn at random gives the chosen experts more.',
    ),
});

/** How copies of a dense FFN become a mixture of experts. */
export const upcycleSchema = z.discriminatedUnion('method', [
  sparseSchema.refine(choosable.check, choosable.says),
  dropSchema.refine(choosable.check, choosable.says),
  noiseSchema.refine(choosable.check, choosable.says),
  granularSchema.refine(choosable.check, choosable.says).superRefine(({experts, shards}, context) => {
    const message = multipleFault(experts, shards);
    if (message !== null) context.addIssue({code: 'custom', path: ['experts'], message});
  }),
]);

/** One method of upcycling and its settings, defaults filled in. */
export type UpcycleMethod = z.output<typeof upcycleSchema>;

/** The settings of granular upcycling. */
export type GranularUpcycle = Extract<UpcycleMethod, {method: 'granular-upcycle'}>;

const METHODS: Readonly<Record<UpcycleMethod['method'], true>> = {
  'sparse-upcycle': true,
  'drop-upcycle': true,
  'noise-upcycle': true,
  'granular-upcycle': true,
};

/** Whether a method copies a dense FFN, as against those that split it. */
export function isUpcycle(options: {readonly method: string}): options is UpcycleMethod {
  return Object.hasOwn(METHODS, options.method);
}

/** Why every shard cannot have as many copies as the others; null if it can. */
function multipleFault(experts: number, shards: number): string | null {
  if (experts % shards === 0) return null;
  const below = experts - (experts % shards);
  const nearest = below === 0 ? `is: ${shards}` : `are: ${below} and ${below + shards}`;
  return `experts (= ${experts}) must be a multiple of shards (= ${shards}); nearest that ${nearest}.`;
}
