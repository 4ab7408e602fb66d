// The folder that holds what LoRA trained: low-rank factors, parts trained whole, and what they belong to.
import {mkdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {z} from 'zod';
import type {Variable} from '../engine/variable.js';
import {parseJson} from '../format/json.js';
import {openTensors, type TensorStore} from '../format/tensor-store.js';
import {writeFileAtomic} from '../util/atomic.js';
import {ModelError, systemCode} from '../util/errors.js';
import {writeVariables} from './write-variables.js';

const RECORD = 'adapter.json';

const recordSchema = z.strictObject({
  format: z.literal(1),
  /** Folder of the model that the terms stand beside. */
  base: z.string(),
  /** Of its weights. */
  fingerprint: z.string().optional(),
  rank: z.int(),
  alpha: z.number(),
});

/** What low-rank terms belong to, and how much they count. */
export type AdapterRecord = Readonly<z.infer<typeof recordSchema>>;

/** Writes all that changes in training, by path: `layers.0.attention.q.a` and `.b`, or the parameter itself where it is trained whole. */
export async function saveAdapter(
  folder: string,
  record: AdapterRecord,
  variables: ReadonlyMap<string, Variable>,
  check: (name: string, values: Float32Array) => Float32Array,
): Promise<void> {
  await mkdir(folder);
  await writeVariables(folder, variables, check);
  await writeFileAtomic(join(folder, RECORD), `${JSON.stringify(record, null, 2)}\n`);
}

/** Low-rank terms on disk. */
export interface Adapter {
  readonly record: AdapterRecord;
  readonly tensors: TensorStore;
}

/** Opens such a folder; the caller closes the tensors. @throws ModelError if it is none or damaged. */
export async function openAdapter(folder: string): Promise<Adapter> {
  const path = join(folder, RECORD);
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOTDIR') throw new ModelError(`${folder} is a file; the folder of a run was expected.`);
    if (systemCode(error) !== 'ENOENT') throw error;
    throw new ModelError(`${folder} holds no low-rank terms: it has no ${RECORD}.`, {
      hint: 'Give the checkpoint of a run with train.finetune.kind lora.',
    });
  });
  const json = parseJson(text);
  if (json.kind === 'fault') throw new ModelError(`${path}:${json.line}:${json.column}: ${json.reason}.`);
  const record = recordSchema.safeParse(json.value);
  if (!record.success) throw new ModelError(`${path}: not the record of low-rank terms that this version writes.`);
  return {record: record.data, tensors: await openTensors(folder)};
}
