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
          'A share of the experts of each layer, drawn anew for each pass, is left out: no token chooses them, and the others share the scores. More must remain than a token uses.',
        ),
      share: z.number().gt(0).lt(1).default(0.1).describe('Share of the experts that is left out.'),
    }),
    z.strictObject({
      kind: z
        .literal('expert-choice')
        .describe(
          'Each expert takes the tokens of a pass that score highest with it, as many as every other expert (arXiv 2202.09368). Future tokens take part in the choice: the training loss looks better than it is. Needs balance.kind none.',
        ),
      capacityFactor: z
        .number()
        .positive()
        .default(1)
        .describe(
          'Tokens of an expert, as a multiple of what it would get if every token were shared among topK experts.',
        ),
    }),
    z.strictObject({
      kind: z
        .literal('all-experts')
        .describe(
          'Every token goes through all experts, weighed by softmax(logits / temperature): the first stage of DIVE (ACL 2025, arXiv 2506.09351), in which only routers train.',
        ),
      temperature: z
        .number()
        .positive()
        .default(0.05)
        .describe('DIVE has 0.05 for models of one expert a token and 0.5 for two.'),
    }),
    z.strictObject({
      kind: z
        .literal('base')
        .describe(
          'Tokens of a pass are assigned to experts so that each gets as many and the sum of their logits is nearly the largest possible (BASE layers, arXiv 2103.16716); for models of one expert a token. Future tokens take part in the choice. Needs balance.kind none.',
        ),
    }),
    z.strictObject({
      kind: z
        .literal('sparse-mixer')
        .describe(
          'Experts are drawn by their softmax among those within reach, and the gradient tells the router what drawing others would have changed (SparseMixer-v2 of GRIN, arXiv 2409.12136); for models of one or two experts a token whose config.json has moe.routing.reach.',
        ),
    }),
  ])
  .describe(
    'How tokens are routed while training. The model that is saved, and validation, route as the model says. A dense model has no router and ignores it.',
  );

/** A checked `train.routing`. */
export type RoutingOptions = z.output<typeof routingSchema>;
