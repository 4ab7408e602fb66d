import {mkdir, readdir, readFile, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {z} from 'zod';
import {parseJson} from '../format/json.js';
import {writeSafetensors} from '../format/safetensors-writer.js';
import {openTensors} from '../format/tensor-store.js';
import {type Model, variablesOf} from '../model/model.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';
import {saveModel} from '../model/save.js';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {ModelError, systemCode} from '../util/errors.js';
import {divergence} from './divergence.js';
import {type MomentSource, readVariable, variablesByPath} from './state.js';
import type {TrainState} from './step.js';

const rng = z.tuple([z.number(), z.number(), z.number(), z.number()]).readonly();

/** Everything a run needs besides weights and moments to go on as if it had never stopped. */
const trainerState = z.strictObject({
  format: z.literal(1),
  configHash: z.string(),
  step: z.int(),
  tokens: z.int(),
  flops: z.number(),
  seconds: z.number(),
  /** Written by versions that compiled steps for several rooms of experts; nothing reads it now. */
  capacity: z.unknown().optional(),
  loader: z.strictObject({
    version: z.int().default(1),
    seed: z.number(),
    rng,
    sources: z.array(z.strictObject({name: z.string(), rows: z.int(), epoch: z.int(), cursor: z.int()})).readonly(),
  }),
});

/** State of the trainer at a step. */
export type TrainerState = z.infer<typeof trainerState>;

/** Written last: a folder without it is not a checkpoint. */
const MARKER = 'trainer.json';
const MODEL = 'model';
const OPTIMIZER = 'optimizer';

/** Folder name of a step's checkpoint, `step-000100`. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/** What a checkpoint is made of. */
export interface CheckpointContent {
  readonly model: Model;
  /** Moments of the optimizer. */
  readonly state: TrainState;
  readonly trainer: TrainerState;
  /** Folder whose tokenizer and record of origin are copied. */
  readonly filesFrom: string;
}

/**
 * Writes weights (float32), moments and trainer state; the folder is whole or absent.
 *
 * @throws ConfigError if a weight is infinite or NaN: nobody could go on from that; EnvironmentError if the disk is full.
 */
export async function saveCheckpoint(run: string, content: CheckpointContent): Promise<string> {
  const {model, state, trainer, filesFrom} = content;
  const path = join(run, checkpointName(trainer.step));
  const variables = variablesByPath(model);
  await writeFolderAtomic(path, async (part) => {
    await saveModel(join(part, MODEL), {
      architecture: model.architecture,
      config: model.config,
      dtype: 'F32',
      tokenizerFrom: filesFrom,
      originFrom: filesFrom,
      read: async (spec) => {
        const variable = variables.get(spec.path);
        if (!variable) throw new Error(`no variable for ${spec.path}`);
        const values = await readVariable(variable);
        if (values.every(Number.isFinite)) return values;
        throw divergence(run, trainer.step, `${spec.path} holds numbers that are not finite`);
      },
    });
    await saveMoments(join(part, OPTIMIZER), state);
    await writeFileAtomic(join(part, MARKER), `${JSON.stringify(trainer, null, 2)}\n`);
  });
  return path;
}

/** The newest whole checkpoint of a run folder, or null. */
export async function latestCheckpoint(run: string): Promise<{path: string; trainer: TrainerState} | null> {
  for (const name of (await checkpointsOf(run)).reverse()) {
    const path = join(run, name);
    const text = await readFile(join(path, MARKER), 'utf8').catch((error: unknown) => {
      if (systemCode(error) === 'ENOENT') return null;
      throw error;
    });
    if (text !== null) return {path, trainer: parseTrainer(text, join(path, MARKER))};
  }
  return null;
}

/** Model folder inside a checkpoint. */
export function checkpointModel(path: string): string {
  return join(path, MODEL);
}

/** Reads moments by parameter path; the caller closes it. */
export async function openMoments(path: string): Promise<{readonly moments: MomentSource; close(): Promise<void>}> {
  const tensors = await openTensors(join(path, OPTIMIZER));
  return {moments: (name, moment) => tensors.read(`${name}.${moment}`), close: () => tensors.close()};
}

/** Removes all but the newest `keep` checkpoints; each loses its marker first, so that half of one is none. */
export async function pruneCheckpoints(run: string, keep: number): Promise<void> {
  for (const name of (await checkpointsOf(run)).slice(0, -keep)) {
    await rm(join(run, name, MARKER), {force: true});
    await rm(join(run, name), {recursive: true});
  }
}

async function checkpointsOf(run: string): Promise<string[]> {
  const names = await readdir(run);
  return names.filter((name) => /^step-\d{6,}$/.test(name)).sort((a, b) => Number(a.slice(5)) - Number(b.slice(5)));
}

async function saveMoments(folder: string, state: TrainState): Promise<void> {
  await mkdir(folder);
  const specs = leavesOf(parameterSpecs(state.architecture));
  const moments = specs.flatMap(({path, shape}, i) => [
    {name: `${path}.first`, shape, variable: state.first[i]},
    {name: `${path}.second`, shape, variable: state.second[i]},
  ]);
  const byName = new Map(moments.map(({name, variable}) => [name, variable]));
  await writeSafetensors(
    folder,
    moments.map(({name, shape}) => ({name, dtype: 'F32', shape})),
    (name) => {
      const variable = byName.get(name);
      if (!variable) throw new Error(`no moment ${name}`);
      return readVariable(variable);
    },
  );
}

function parseTrainer(text: string, path: string): TrainerState {
  const json = parseJson(text);
  if (json.kind === 'fault') throw new ModelError(`${path}:${json.line}:${json.column}: ${json.reason}.`);
  const parsed = trainerState.safeParse(json.value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ModelError(
    `${path}: not a trainer state this version can read: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}.`,
  );
}

/** Number of parameters that training changes: all of them, as long as every weight is trained. */
export function countTrainable(model: Model): number {
  return variablesOf(model).reduce((sum, {shape}) => sum + shape.reduce((product, size) => product * size, 1), 0);
}
