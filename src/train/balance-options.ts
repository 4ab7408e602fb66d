// Keys of `train.balance`; apart from what computes it, so that a command line is read without the engine.
import {z} from 'zod';

const zLoss = (fallback: number) =>
  z
    .number()
    .min(0)
    .default(fallback)
    .describe('Weight of the router z-loss, mean(logsumexp(logits)²), which keeps router logits small; 0 for none.');

const scope = z
  .enum(['batch', 'micro-batch', 'sequence'])
  .describe(
    'Over which tokens shares and probabilities are taken. batch: shares over all passes of the step so far (arXiv 2501.11873). micro-batch: those of one pass. sequence: each row of text on its own, then the mean (DeepSeek-V3).',
  );

/** What keeps experts in use. */
export const balanceSchema = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z
        .literal('aux')
        .optional()
        .default('aux')
        .describe(
          'Adds weight x L to the loss, averaged over MoE layers: L = E Σ_e f_e P_e, with f_e the share of routed rows expert e got and P_e its mean router probability; 1 when even (arXiv 2101.03961).',
        ),
      weight: z.number().min(0).default(0.01).describe('Weight of the balance loss.'),
      scope: scope.default('batch'),
      zLoss: zLoss(1e-3),
    }),
    z.strictObject({
      kind: z
        .literal('pooled')
        .describe(
          'The loss of Hugging Face transformers (`router_aux_loss_coef`): shares and probabilities over all layers together, so that layers that err in opposite ways balance each other; topK when even.',
        ),
      weight: z.number().min(0).default(0.01).describe('Weight of the balance loss.'),
      zLoss: zLoss(0),
    }),
    z.strictObject({
      kind: z
        .literal('cv2')
        .describe(
          'Adds weight x the squared coefficient of variation of what experts weigh over all tokens, averaged over MoE layers; 0 when even (Shazeer et al. 2017, arXiv 1701.06538; LLaMA-MoE). With train.routing.kind noisy that of the expected load besides, as the paper has it.',
        ),
      weight: z.number().min(0).default(0.01).describe('Weight of the balance loss.'),
      zLoss: zLoss(0),
    }),
    z.strictObject({
      kind: z
        .literal('bias')
        .describe(
          'No loss: after every step a bias of each expert, which moves the choice and no weight, goes up by `rate` if the expert got less than its share, else down (arXiv 2408.15664). A model without such biases gets them.',
        ),
      rate: z.number().positive().default(1e-3).describe('How far a bias moves in a step.'),
      weight: z
        .number()
        .min(0)
        .default(0)
        .describe('Weight of a balance loss over each row of text besides; DeepSeek-V3 has 1e-4.'),
      zLoss: zLoss(0),
    }),
    z.strictObject({kind: z.literal('none').describe('No balance loss: experts may fall idle.'), zLoss: zLoss(0)}),
  ])
  .describe('What keeps all experts in use. A dense model has no router and ignores it.');

/** A checked `train.balance`. */
export type BalanceOptions = z.output<typeof balanceSchema>;
