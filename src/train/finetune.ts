// Which parameters train, and which have a low-rank term that trains instead.
import {z} from 'zod';
import type {Architecture} from '../model/architecture.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../model/parameters.js';
import {ConfigError} from '../util/errors.js';
import {isMatrix, PARTS, type Part, partOf} from './part.js';

const part = z.enum(PARTS);

const fullSchema = z.strictObject({
  kind: z.literal('full').optional().default('full').describe('Every weight is trained.'),
});

const partsSchema = z.strictObject({
  kind: z.literal('parts').describe('Some parts of the model are trained, the others stay as they are.'),
  train: z.array(part).min(1).describe('Parts that train, for example [routers] or [experts, norms].'),
});

const loraSchema = z.strictObject({
  kind: z
    .literal('lora')
    .describe('Matrices stay as they are; beside each a product of two thin ones is trained (LoRA, arXiv 2106.09685).'),
  rank: z.int().min(1).default(8).describe('Columns of the first thin matrix, rows of the second.'),
  alpha: z.number().positive().default(16).describe('The product counts alpha / rank times.'),
  dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe('Share of the input of the thin matrices that is set to zero in training; embeddings have none.'),
  targets: z
    .array(part)
    .min(1)
    .describe('Parts whose matrices get one: each routed expert its own. Norms have no matrix.'),
  train: z.array(part).default([]).describe('Parts that are trained whole besides, for example [routers, norms].'),
  merge: z
    .boolean()
    .default(true)
    .describe(
      'Whether the model of a checkpoint has the products added to its matrices, so that anything can use it; otherwise it has the thin matrices only, and `downcycle merge` makes a model of both.',
    ),
});

/** Which weights are trained. */
export const finetuneSchema = z
  .discriminatedUnion('kind', [fullSchema, partsSchema, loraSchema])
  .describe('Which weights are trained.');

/** A checked `train.finetune`. */
export type FinetuneOptions = z.output<typeof finetuneSchema>;

/** What becomes of the parameters of a model. */
export interface Selection {
  /** Trained whole. */
  readonly whole: readonly ParameterSpec[];
  /** Frozen, with a low-rank term that trains. */
  readonly adapted: readonly ParameterSpec[];
}

/**
 * Chooses what trains.
 *
 * @throws ConfigError if a part that is named is not in the model, has no matrix, or is both a target and trained whole.
 */
export function selectParameters(architecture: Architecture, finetune: FinetuneOptions): Selection {
  const specs = leavesOf(parameterSpecs(architecture));
  if (finetune.kind === 'full') return {whole: specs, adapted: []};
  const inPart = (names: readonly Part[]) => (spec: ParameterSpec) => names.includes(partOf(spec));
  for (const name of finetune.train) requirePart(specs, name, 'train');
  const whole = specs.filter(inPart(finetune.train));
  if (finetune.kind === 'parts') return {whole, adapted: []};
  for (const name of finetune.targets) {
    requirePart(specs, name, 'targets');
    if (!specs.filter(inPart([name])).some(isMatrix)) {
      throw new ConfigError(`train.finetune.targets: ${name} have no matrix that a low-rank term could stand beside.`, {
        hint: `Train them whole: train: [${name}].`,
      });
    }
    if (!finetune.train.includes(name)) continue;
    throw new ConfigError(`train.finetune: ${name} is among targets and train, but can be only one of the two.`, {
      hint: 'Leave it out of one.',
    });
  }
  return {whole, adapted: specs.filter(inPart(finetune.targets)).filter(isMatrix)};
}

function requirePart(specs: readonly ParameterSpec[], name: Part, key: string): void {
  const found = PARTS.filter((one) => specs.some((spec) => partOf(spec) === one));
  if (found.includes(name)) return;
  throw new ConfigError(`train.finetune.${key}: the model has no ${name}.`, {hint: `It has ${found.join(', ')}.`});
}
