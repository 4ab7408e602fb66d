import {z} from 'zod';
import {PARTS} from '../part.js';
import type {OptimizerOptions} from './update.js';

const lr = z.number().positive().default(4e-4).describe('Peak learning rate.');
const rates = z
  .partialRecord(z.enum(PARTS), z.number().positive())
  .default({})
  .describe(
    'Peak learning rates of single parts, for example {routers: 1e-3}; warm-up and schedule shape them as they do lr.',
  );
const clip = z
  .number()
  .min(0)
  .default(1)
  .describe('Largest global norm of the gradient; a larger one is scaled down to it. 0 for no clipping.');
const weightDecay = z
  .number()
  .min(0)
  .default(0.1)
  .describe('Decoupled weight decay, scaled by the learning rate; norms and biases have none.');
const betas = z
  .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
  .default([0.9, 0.95])
  .describe('Decay of the running means of the gradient and of its square.');
const eps = z.number().positive().default(1e-8).describe('Added to the root of the second mean.');

const adamwSchema = z.strictObject({
  kind: z
    .literal('adamw')
    .optional()
    .default('adamw')
    .describe('AdamW with decoupled weight decay (arXiv 1711.05101).'),
  ...{lr, rates, betas, eps, weightDecay, clip},
});

const adafactorSchema = z.strictObject({
  kind: z
    .literal('adafactor')
    .describe('Adafactor, which keeps sums of rows and columns in place of two moments (arXiv 1804.04235).'),
  ...{lr, rates},
  beta2Decay: z.number().lt(0).default(-0.8).describe('The mean of squares decays by 1 - step^beta2Decay.'),
  eps: z.number().positive().default(1e-3).describe('Least size of an update relative to its parameter.'),
  threshold: z.number().positive().default(1).describe('Root mean square that an update is brought down to.'),
  ...{weightDecay: weightDecay.default(0), clip},
});

const muonSchema = z.strictObject({
  kind: z
    .literal('muon')
    .describe(
      'Muon for the matrices of layers: momentum made orthogonal, at the size of an AdamW step (arXiv 2502.16982). Embeddings, heads, routers, norms and biases are moved by AdamW with `betas` and `eps`.',
    ),
  ...{lr, rates},
  momentum: z.number().min(0).lt(1).default(0.95).describe('Decay of the running mean of the gradient.'),
  nesterov: z.boolean().default(true).describe('Whether the gradient is looked ahead along the momentum.'),
  iterations: z.int().min(1).default(5).describe('Newton-Schulz iterations that make it orthogonal.'),
  ...{betas, eps, weightDecay, clip},
});

/** How gradients change weights. */
export const optimizerSchema = z
  .discriminatedUnion('kind', [adamwSchema, adafactorSchema, muonSchema])
  .describe('How gradients change weights.');

/** A checked `train.optimizer`. */
export type OptimizerSettings = z.output<typeof optimizerSchema>;

/** The constants of the optimizer that settings name. */
export function optimizerOf(settings: OptimizerSettings): OptimizerOptions {
  if (settings.kind !== 'muon') return settings;
  const {betas: decays, eps: epsilon, weightDecay: decay} = settings;
  return {...settings, adamw: {kind: 'adamw', betas: decays, eps: epsilon, weightDecay: decay}};
}
