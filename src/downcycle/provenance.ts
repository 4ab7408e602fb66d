// downcycle.json: where a mixture of experts came from.
import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {z} from 'zod';
import {parseJson} from '../format/json.js';
import {ORIGIN_FILES} from '../format/model-folder.js';
import {writeFileAtomic} from '../util/atomic.js';
import {ModelError, systemCode} from '../util/errors.js';
import {packageVersion} from '../util/version.js';
import {diveSchema} from './dive-options.js';
import {splitSchema} from './options.js';
import {profileSchema} from './profile-options.js';
import {upcycleSchema} from './upcycle-options.js';

/** The file in an MoE folder that holds its {@link Provenance}. */
export const PROVENANCE_FILE = ORIGIN_FILES.record;

const proofSchema = z.strictObject({
  /** Largest difference of two logits. */
  maxLogitDifference: z.number(),
  /** What it may be. */
  limit: z.number(),
  passed: z.boolean(),
  /** Positions compared. */
  tokens: z.int(),
});

/** How far an MoE with every expert active is from its dense parent. */
export type Proof = z.output<typeof proofSchema>;

const sourceSchema = z.strictObject({
  path: z.string(),
  revision: z.string().nullable(),
  fingerprint: z.string(),
  /** Of a GGUF file: how many of its tensors are of each type. Blocks were made float32, other numbers kept their bits. */
  gguf: z.record(z.string(), z.int()).optional(),
});
const common = {
  format: z.literal(1),
  versions: z.strictObject({downcycle: z.string(), node: z.string()}),
  seed: z.int(),
  equivalence: proofSchema.nullable(),
  /** Said of weights that were trained since they were made so. */
  trained: z.literal(true).optional(),
};

const calibrationSchema = z.strictObject({
  tasks: z.array(z.string()),
  tokenHash: z.string(),
  options: profileSchema,
});

const affinitySchema = z.strictObject({
  /** Of the model pruned on task i, on the text of task j. */
  perplexity: z.array(z.array(z.number())),
  /** Pearson correlation of tasks. */
  correlation: z.array(z.array(z.number())),
  /** Ids of the tasks that each expert was pruned on. */
  clusters: z.array(z.array(z.int())),
});

const layerSchema = z.strictObject({
  experts: z.int(),
  topK: z.int(),
  expertWidth: z.int(),
  sharedWidth: z.int(),
  /** Share of neurons above the CV threshold, and shared ratio before rounding; null where nobody looked. */
  specialisedShare: z.number().nullable(),
  sharedRatio: z.number(),
  /** Factor that the experts' down projections carry. */
  routedScale: z.number(),
  /** Squared error of the layer's output over that of the dense one, before and after a repair; null without one. */
  error: z.strictObject({before: z.number(), after: z.number()}).nullable().default(null),
});

/** The cut of one layer as recorded. */
export type LayerRecord = z.output<typeof layerSchema>;

const innerLayerSchema = z.strictObject({
  experts: z.int(),
  topK: z.int(),
  /** Neurons of each expert of the source. */
  numNeurons: z.int(),
  /** Those of them that every token of the expert uses. */
  sharedWidth: z.int(),
  /** What the others make up inside each expert. */
  inner: z.strictObject({experts: z.int(), topK: z.int(), expertWidth: z.int()}),
  /** Experts that no calibration token reached; their neurons are cut in the order that they have. */
  unreached: z.array(z.int()),
});

/** The cut of the experts of one layer as recorded. */
export type InnerLayerRecord = z.output<typeof innerLayerSchema>;

const provenanceSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('split'),
    ...common,
    source: sourceSchema,
    method: splitSchema,
    calibration: calibrationSchema.nullable(),
    neuronMapHash: z.string(),
    /** Neurons of zeros that were appended to each dense FFN; their ids are the last. */
    padding: z.int().min(0).default(0),
    layers: z.array(layerSchema),
  }),
  z.strictObject({
    kind: z.literal('inner-split'),
    ...common,
    /** The mixture whose experts were cut. */
    source: sourceSchema,
    method: splitSchema,
    calibration: calibrationSchema,
    neuronMapHash: z.string(),
    /** Null for a layer without experts. */
    layers: z.array(innerLayerSchema.nullable()),
  }),
  z.strictObject({kind: z.literal('upcycle'), ...common, source: sourceSchema, method: upcycleSchema}),
  z.strictObject({
    kind: z.literal('prune'),
    ...common,
    source: sourceSchema,
    method: diveSchema,
    calibration: calibrationSchema,
    affinity: affinitySchema,
    /** Neurons of each dense FFN, and those of them that each expert keeps. */
    numNeurons: z.int(),
    expertWidth: z.int(),
    /** SHA-256 of the lists of neurons that experts keep. */
    neuronMapHash: z.string(),
  }),
  z.strictObject({kind: z.literal('scratch'), ...common}),
]);

/** Where a model came from: cut out of a dense one or of the experts of a mixture, copied from one, made of one pruned in several ways, or drawn at random. */
export type Provenance = z.output<typeof provenanceSchema>;

/** Versions of what makes a model, for its record. */
export function currentVersions(): Provenance['versions'] {
  return {downcycle: packageVersion(), node: process.version};
}

/** The text of {@link PROVENANCE_FILE}. */
export function renderProvenance(provenance: Provenance): string {
  return `${JSON.stringify(provenance, null, 2)}\n`;
}

/**
 * Reads where a model folder came from.
 *
 * @throws ModelError if the folder has no such file or a damaged one.
 */
export async function readProvenance(folder: string): Promise<Provenance> {
  const path = join(folder, PROVENANCE_FILE);
  const json = parseJson(await readText(path));
  if (json.kind === 'fault') throw new ModelError(`${path}:${json.line}:${json.column}: ${json.reason}.`);
  const parsed = provenanceSchema.safeParse(json.value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ModelError(`${path}: ${issue?.path.join('.')}: ${issue?.message}.`);
}

/** Writes the result of a conversion proof into the folder's record. */
export async function recordProof(folder: string, equivalence: Proof): Promise<void> {
  const provenance = await readProvenance(folder);
  await writeFileAtomic(join(folder, PROVENANCE_FILE), renderProvenance({...provenance, equivalence}));
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) !== 'ENOENT') throw cause;
    throw new ModelError(`${path}: there is no such file.`, {
      hint: 'Only folders that downcycle converted have one.',
      cause,
    });
  }
}
