import {z} from 'zod';

/** Version of the records; a log says it in its `run` record. */
export const RUN_LOG_SCHEMA = 1;

const count = z.int().nonnegative();
/** A measured number. JSON knows no NaN and no infinity: null stands for them, and for what was not measured. */
const measured = z.number().nullable();

const versionError = ({input}: {readonly input?: unknown}): string =>
  `this log has schema ${JSON.stringify(input)}, this downcycle reads ${RUN_LOG_SCHEMA}`;

/** First record: what runs, where, and how large it is. */
const run = z.object({
  kind: z.literal('run'),
  schema: z.literal(RUN_LOG_SCHEMA, {error: versionError}),
  name: z.string(),
  arm: z.string().describe('arm of the comparison; the name of the run where nothing is compared'),
  configHash: z.string(),
  seed: z.int(),
  versions: z.record(z.string(), z.string()),
  device: z.string(),
  parameters: z.object({total: count, active: count, trainable: count}),
  parts: z
    .array(z.object({part: z.string(), parameters: count, trained: count, moved: count.optional(), lowRank: count}))
    .optional()
    .describe(
      'by part of the model: its parameters, those that train, those that move without a gradient, and those of low-rank terms beside it',
    ),
  experts: z.array(z.array(count)).optional().describe('by MoE layer, the experts that ESFT trains'),
  inputs: z
    .record(z.string(), z.string())
    .optional()
    .describe('fingerprints of model and packed text, by which a resumed run knows that they are the same'),
  startedAt: z.string().describe('ISO 8601'),
});

/** One optimizer step. Fields of the wall clock come last: up to them, lines of equal runs are equal bytes. */
const step = z.object({
  kind: z.literal('step'),
  step: count,
  tokens: count.describe('tokens trained on so far'),
  flops: z
    .number()
    .nonnegative()
    .describe(
      'floating-point operations spent so far, by the formula, as if every weight were trained, with the experts that train.routing gives a token',
    ),
  loss: measured.describe('mean cross-entropy of the batch, nats a token'),
  auxLoss: measured.describe('balance loss, unweighted'),
  zLoss: measured.describe('router z-loss, unweighted'),
  distillLoss: measured.optional().describe('divergence from the teacher, nats a token, at its temperature'),
  gradNorm: measured.describe('global norm before clipping'),
  lr: z.record(z.string(), z.number()).describe('learning rate by parameter group'),
  load: z.array(z.array(measured)).optional().describe('by MoE layer, the share of routed rows each expert got'),
  overflow: count.describe('expert rows that a capacity factor dropped'),
  skipped: z
    .literal(true)
    .optional()
    .describe('the step changed nothing: its loss was a spike, or a number not finite'),
  damaged: count.optional().describe('rows that could not be read, for which others stood in'),
  seconds: z.number().nonnegative().describe('wall-clock since the run started, earlier sessions included'),
  tokensPerSecond: measured,
  utilisation: measured.describe('share of the device peak; null where the peak is not known'),
});

/** The model measured on held-out rows. */
const evaluation = z.object({
  kind: z.literal('eval'),
  step: count,
  tokens: count,
  split: z.string(),
  loss: measured,
  perplexity: measured,
});

/** A checkpoint that is whole on the disk. */
const checkpoint = z.object({
  kind: z.literal('checkpoint'),
  step: count,
  path: z.string().describe('relative to the run folder'),
});

/** The run goes on from a checkpoint. */
const resume = z.object({
  kind: z.literal('resume'),
  step: count,
  tokens: count,
  versions: z.record(z.string(), z.string()),
  device: z.string(),
  configHash: z.string().optional().describe('of the config it goes on with, where that was changed'),
  inputs: z.record(z.string(), z.string()).optional().describe('as in the head of the log, where one was changed'),
  changed: z.array(z.string()).optional().describe('keys of the config and inputs that are others than before'),
  resumedAt: z.string().describe('ISO 8601'),
});

/** Nothing more is coming. */
const end = z.object({
  kind: z.literal('end'),
  step: count,
  tokens: count,
  seconds: z.number().nonnegative(),
  reason: z
    .enum(['completed', 'early', 'interrupted', 'failed'])
    .describe('early: the validation loss fell no more for as long as train.patience says'),
});

/** One line of `log.jsonl`. Keys it does not know are dropped, so that later versions may add some. */
export const runLogRecord = z.discriminatedUnion('kind', [run, step, evaluation, checkpoint, resume, end]);

/** Any record of a run log. */
export type RunLogRecord = z.infer<typeof runLogRecord>;
/** The record that opens a log. */
export type RunRecord = z.infer<typeof run>;
/** One optimizer step. */
export type StepRecord = z.infer<typeof step>;
/** One evaluation. */
export type EvalRecord = z.infer<typeof evaluation>;
/** The end of a run. */
export type EndRecord = z.infer<typeof end>;
