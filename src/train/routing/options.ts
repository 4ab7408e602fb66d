// How tokens are routed while training; the model that is saved routes as its config says.
import {z} from 'zod';

/** How tokens are routed while training. */
export const routingSchema = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z.literal('as-is').optional().default('as-is').describe('As the model says.'),
    }),
    z.strictObject({
      kind: z
        .literal('jitter')
        .describe(
          'What routers see is multiplied with numbers drawn evenly from 1 - amount to 1 + amount, one for each token and feature (Switch Transformer, arXiv 2101.03961; `router_jitter_noise` of transformers).',
        ),
      amount: z.number().gt(0).lt(1).default(0.01).describe('How far the factors lie from 1 at most.'),
    }),
    z.strictObject({
      kind: z
        .literal('noisy')
        .describe(
          'Normal noise on the logits, before experts are chosen and weighed (noisy top-k, Shazeer et al. 2017, arXiv 1701.06538, eq. 4, with noise of a fixed size).',
        ),
      std: z
        .number()
        .positive()
        .optional()
        .describe('Standard deviation of the noise; one over the experts of a layer if absent (arXiv 2106.05974).'),
    }),
    z.strictObject({
      kind: z
        .literal('expert-dropout')
        .describe(
          'A share of the experts of each layer, drawn anew for each pass, is left out: no token chooses them, and the others share the scores.',
        ),
      share: z.number().gt(0).lt(1).default(0.1).describe('Share of the experts that is left out.'),
    }),
  ])
  .describe(
    'How tokens are routed while training. The model that is saved, and validation, route as the model says. A dense model has no router and ignores it.',
  );

/** A checked `train.routing`. */
export type RoutingOptions = z.output<typeof routingSchema>;
