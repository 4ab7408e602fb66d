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
    .describe(
      'Share of the input of the thin matrices that is set to zero in training; embeddings, and routers inside experts, have none.',
    ),
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

const esftSchema = z.strictObject({
  kind: z
    .literal('esft')
    .describe(
      'Of each layer the experts are trained that the text uses most, the others stay (ESFT, arXiv 2407.01906).',
    ),
  by: z
    .enum(['tokens', 'scores'])
    .default('tokens')
    .describe('What use is: the tokens sent to an expert, or what it weighs for them together.'),
  share: z
    .number()
    .gt(0)
    .max(1)
    .default(0.2)
    .describe(
      'Experts are taken, the most used first, until they have this share of all use; the paper has 0.2 for tokens and 0.1 for scores.',
    ),
  rows: z
    .int()
    .min(1)
    .default(32)
    .describe('Rows of training text that are looked at before the first step, in whole batches.'),
  train: z.array(part).default([]).describe('Parts that are trained whole besides, for example [norms].'),
});

/** Which weights are trained. */
export const finetuneSchema = z
  .discriminatedUnion('kind', [fullSchema, partsSchema, loraSchema, esftSchema])
  .describe('Which weights are trained.');

/** A checked `train.finetune`. */
export type FinetuneOptions = z.output<typeof finetuneSchema>;

/** Checked options of ESFT. */
export type EsftOptions = Extract<FinetuneOptions, {kind: 'esft'}>;

/** What becomes of the parameters of a model. */
export interface Selection {
  /** Trained whole. */
  readonly whole: readonly ParameterSpec[];
  /** Frozen, with a low-rank term that trains. */
  readonly adapted: readonly ParameterSpec[];
  /** Of stacked parameters that are trained, the members that are, by path; all of those not named. */
  readonly members: ReadonlyMap<string, readonly number[]>;
}

const ALL: Selection['members'] = new Map();

/**
 * Chooses what trains.
 *
 * @param experts the experts that ESFT trains, by MoE layer.
 * @throws ConfigError if a part that is named is not in the model, has no matrix, or is both a target and trained whole.
 */
export function selectParameters(
  architecture: Architecture,
  finetune: FinetuneOptions,
  experts: readonly (readonly number[])[] = [],
): Selection {
  const specs = leavesOf(parameterSpecs(architecture));
  if (finetune.kind === 'full') return {whole: specs, adapted: [], members: ALL};
  const inPart = (names: readonly Part[]) => (spec: ParameterSpec) => names.includes(partOf(spec));
  for (const name of finetune.train) requirePart(specs, name, 'train');
  const whole = specs.filter(inPart(finetune.train));
  if (finetune.kind === 'parts') return {whole, adapted: [], members: ALL};
  if (finetune.kind === 'esft') return usedExperts(architecture, specs, whole, experts);
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
  const adapted = specs.filter(inPart(finetune.targets)).filter(isMatrix);
  requireThin(finetune.rank, adapted);
  return {whole, adapted, members: ALL};
}

/** @throws ConfigError if thin matrices would be wider than any that they stand beside. */
function requireThin(rank: number, adapted: readonly ParameterSpec[]): void {
  const most = Math.max(...adapted.map(({shape}) => Math.min(...shape.slice(-2))));
  if (rank <= most) return;
  throw new ConfigError(
    `train.finetune.rank is ${rank}, and the matrices of its targets have a rank of ${most} at most.`,
    {hint: `Say ${most} or less; 8 to 64 are usual.`},
  );
}

/** Some experts of every layer, besides parts that train whole. */
function usedExperts(
  {ffn}: Architecture,
  specs: readonly ParameterSpec[],
  whole: readonly ParameterSpec[],
  experts: readonly (readonly number[])[],
): Selection {
  if (whole.some((spec) => partOf(spec) === 'experts')) {
    throw new ConfigError('train.finetune.train: experts are what esft chooses from, and cannot train whole besides.', {
      hint: 'Leave them out, or say kind: parts.',
    });
  }
  requirePart(specs, 'experts', 'kind');
  const layers = ffn.flatMap((layout, l) => (layout.kind === 'moe' ? [`layers.${l}.`] : []));
  const members = layers.flatMap((layer, i) =>
    specs
      .filter((spec) => partOf(spec) === 'experts' && spec.path.startsWith(layer))
      .map(({path}) => [path, experts[i] ?? []] as const),
  );
  const byPath = new Map(members);
  return {whole: [...specs.filter(({path}) => byPath.has(path)), ...whole], adapted: [], members: byPath};
}

function requirePart(specs: readonly ParameterSpec[], name: Part, key: string): void {
  const found = PARTS.filter((one) => specs.some((spec) => partOf(spec) === one));
  if (found.includes(name)) return;
  throw new ConfigError(`train.finetune.${key}: the model has no ${name}.`, {hint: `It has ${found.join(', ')}.`});
}
