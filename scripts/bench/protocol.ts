// What the driver and the two sides say to each other: one JSON object a line, a request on stdin, its answer on stdout.
import {z} from 'zod';
import type {Precision} from '../../src/engine/precision.js';
import type {Architecture} from '../../src/model/architecture.js';
import type {FinetuneOptions} from '../../src/train/finetune.js';
import type {AdamWOptions} from '../../src/train/optimizer/adamw.js';

/** A parameter as a side makes it: std null means ones. */
export interface ParameterSetup {
  readonly path: string;
  readonly shape: readonly number[];
  readonly std: number | null;
  readonly decays: boolean;
}

/** Everything both sides must have in common. */
export interface Setup extends AdamWOptions {
  readonly architecture: Architecture;
  readonly parameters: readonly ParameterSetup[];
  /** Given starting values by path, or null for random ones from `seed`. */
  readonly weights: Readonly<Record<string, readonly number[]>> | null;
  readonly seed: number;
  /** What trains, in our words; in PyTorch's the paths trained whole, and those with a low-rank term beside, whose paths end in `.a` and `.b`. */
  readonly finetune: FinetuneOptions;
  readonly trained: readonly string[];
  readonly adapted: readonly string[];
  /** What the product of a term's factors counts. */
  readonly scale: number;
  /** Rows of a batch, and predicted tokens of a row. */
  readonly batch: number;
  readonly sequence: number;
  /** Rows of sequence + 1 tokens, one list a batch; steps go round them. */
  readonly batches: readonly (readonly number[])[];
  readonly learningRate: number;
  readonly balanceWeight: number;
  readonly threads: number;
  readonly device: 'cpu' | 'cuda';
  /** What inputs of products are rounded to: by autocast in PyTorch. */
  readonly precision: Precision;
  /** Even shares an expert has room for on our side, rows beyond it dropped; null drops none. PyTorch never drops. */
  readonly capacity: number | null;
  /** Whether PyTorch goes through `torch.compile`. */
  readonly compile: boolean;
}

/** What a side is asked. */
export type Request =
  | {readonly kind: 'start'; readonly setup: Setup}
  | {readonly kind: 'steps'; readonly count: number}
  | {readonly kind: 'matmul'; readonly size: number; readonly repeats: number};

const stepTime = z.strictObject({
  /** Wall time of the whole step, with batch upload and the read of the loss. */
  ms: z.number(),
  /** Time inside compiled functions; null where there are none. */
  insideMs: z.number().nullable(),
  loss: z.number(),
  /** Expert rows that a fixed capacity dropped. */
  overflow: z.number(),
});

/** One optimizer step. */
export type StepTime = z.output<typeof stepTime>;

/** The answers, each to the request of its name. */
export const ANSWERS = {
  start: z.strictObject({kind: z.literal('ready'), version: z.string()}),
  steps: z.strictObject({
    kind: z.literal('steps'),
    steps: z.array(stepTime),
    /** Of the last step, by MoE layer, each expert's share of the rows. */
    loads: z.array(z.array(z.number())),
    /** What a reader of the times should know, one line each. */
    notes: z.array(z.string()),
  }),
  /** Times of single products, by way of computing them. */
  matmul: z.strictObject({kind: z.literal('matmul'), ms: z.record(z.string(), z.array(z.number()))}),
} as const;

/** The answer to a request of a kind. */
export type Answer<K extends Request['kind']> = z.output<(typeof ANSWERS)[K]>;
