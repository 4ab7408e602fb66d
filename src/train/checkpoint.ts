import {mkdir, readdir, readFile, rm} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {z} from 'zod';
import type {Variable} from '../engine/variable.js';
import {parseJson} from '../format/json.js';
import {openTensors} from '../format/tensor-store.js';
import {type AdaptedModel, mergedValues} from '../model/adapter.js';
import type {Model} from '../model/model.js';
import {saveModel} from '../model/save.js';
import {writeFileAtomic, writeFolderAtomic} from '../util/atomic.js';
import {ModelError, systemCode} from '../util/errors.js';
import {type AdapterRecord, openAdapter, saveAdapter} from './adapter-folder.js';
import {bestLossSchema} from './best.js';
import {divergence} from './divergence.js';
import {averagedModel} from './ema.js';
import {type StoredValues, type TrainState, variablesByPath} from './state.js';
import {writeVariables} from './write-variables.js';

const rng = z.tuple([z.number(), z.number(), z.number(), z.number()]).readonly();

/** Version of what a checkpoint holds. */
const FORMAT = 1;

/** Everything a run needs besides weights and moments to go on as if it had never stopped. */
const trainerState = z.strictObject({
  format: z.literal(FORMAT, {
    error: ({input}) => `the checkpoint has ${String(input)}, this downcycle reads ${FORMAT}`,
  }),
  configHash: z.string(),
  /** The config itself, as YAML. */
  config: z.string().optional(),
  step: z.int(),
  /** Steps that were applied, where some were skipped. */
  applied: z.int().optional(),
  tokens: z.int(),
  flops: z.number(),
  seconds: z.number(),
  /** Losses of the last steps, by which a spike is known; null for one that was not finite. */
  recent: z.array(z.number().nullable()).readonly().optional(),
  best: bestLossSchema.optional(),
  /** By MoE layer, the experts that ESFT trains. */
  experts: z.array(z.array(z.int()).readonly()).readonly().optional(),
  /** Without what the optimizer keeps: nothing goes on from it. */
  light: z.literal(true).optional(),
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
const ADAPTER = 'adapter';
const EMA = 'ema';

/** Folder name of a step's checkpoint, `step-000100`. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(6, '0')}`;
}

/** What a checkpoint is made of. */
export interface CheckpointContent {
  readonly model: Model;
  /** What trains, and what the optimizer keeps. */
  readonly state: TrainState;
  readonly trainer: TrainerState;
  /** What low-rank terms stand beside; null if there are none. */
  readonly adapter: AdapterRecord | null;
  /** Whether the model is written, low-rank terms added. */
  readonly withModel: boolean;
  /** Folder whose tokenizer and record of origin are copied. */
  readonly filesFrom: string;
}

/**
 * Writes weights (float32), their running means, what the optimizer keeps and trainer state; the folder is whole or absent.
 *
 * @throws ConfigError if a weight is infinite or NaN: nobody could go on from that; EnvironmentError if the disk is full.
 */
export async function saveCheckpoint(run: string, content: CheckpointContent): Promise<string> {
  const {state, trainer, adapter, withModel} = content;
  const path = join(run, checkpointName(trainer.step));
  const finite = (name: string, values: Float32Array): Float32Array => {
    if (values.every(Number.isFinite)) return values;
    throw divergence(run, trainer.step, `${name} holds numbers that are not finite`);
  };
  await writeFolderAtomic(path, async (part) => {
    const averaged = averagedModel(state);
    if (withModel) await saveWeights(join(part, MODEL), content, state, finite);
    if (adapter) await saveAdapter(join(part, ADAPTER), adapter, variablesOf(state), finite);
    if (averaged && withModel) await saveWeights(join(part, EMA), content, averaged, finite);
    else if (averaged && adapter) await saveAdapter(join(part, EMA), adapter, averagesOf(state), finite);
    if (!trainer.light) {
      await mkdir(join(part, OPTIMIZER));
      await saveSlots(join(part, OPTIMIZER), state);
    }
    await writeFileAtomic(join(part, MARKER), `${JSON.stringify(trainer, null, 2)}\n`);
  });
  return path;
}

/** Adds to the light checkpoint of a step what the optimizer keeps, so that a run can go on from it. */
export async function completeCheckpoint(run: string, state: TrainState, trainer: TrainerState): Promise<string> {
  const path = join(run, checkpointName(trainer.step));
  const slots = join(path, OPTIMIZER);
  await rm(slots, {recursive: true, force: true});
  await writeFolderAtomic(slots, (part) => saveSlots(part, state));
  await writeFileAtomic(join(path, MARKER), `${JSON.stringify(trainer, null, 2)}\n`);
  return path;
}

/** A model as it is now, low-rank terms added to their matrices. */
async function saveWeights(
  path: string,
  {model, filesFrom}: CheckpointContent,
  weights: AdaptedModel,
  finite: (name: string, values: Float32Array) => Float32Array,
): Promise<void> {
  const variable = variablesByPath(weights);
  await saveModel(path, {
    architecture: model.architecture,
    config: model.config,
    dtype: 'F32',
    tokenizerFrom: filesFrom,
    originFrom: filesFrom,
    read: async (spec) => finite(spec.path, await mergedValues(variable(spec.path), weights.adapters?.get(spec.path))),
  });
}

/** What trains, by path. */
function variablesOf({trained, moved}: TrainState): Map<string, Variable> {
  return new Map([...trained.map(({path, variable}) => [path, variable] as const), ...moved]);
}

/** The running means of it; what moves without a gradient has none and stands for itself. */
function averagesOf(state: TrainState): Map<string, Variable> {
  return new Map([...meansOf(state), ...state.moved]);
}

function meansOf({trained}: TrainState): Map<string, Variable> {
  return new Map(trained.flatMap(({path, ema}) => (ema ? [[path, ema]] : [])));
}

/** The newest checkpoint of a run folder that a run can go on from, or null. */
export async function latestCheckpoint(run: string): Promise<{path: string; trainer: TrainerState} | null> {
  for (const name of (await checkpointsOf(run)).reverse()) {
    const trainer = await readTrainer(join(run, name));
    if (trainer && !trainer.light) return {path: join(run, name), trainer};
  }
  return null;
}

/** The newest checkpoint, of weights alone or whole; null if there is none. */
export async function newestCheckpoint(run: string): Promise<string | null> {
  for (const name of (await checkpointsOf(run)).reverse()) {
    if (await readTrainer(join(run, name))) return join(run, name);
  }
  return null;
}

/** The newest checkpoint that holds weights alone, or null. */
export async function latestLight(run: string): Promise<string | null> {
  for (const name of (await checkpointsOf(run)).reverse()) {
    if ((await readTrainer(join(run, name)))?.light) return join(run, name);
  }
  return null;
}

/** Names of what were checkpoints, and lack their marker. */
export async function unmarkedCheckpoints(run: string): Promise<string[]> {
  const names = await checkpointsOf(run);
  const isMarked = await Promise.all(names.map(async (name) => (await readTrainer(join(run, name))) !== null));
  return names.filter((_, i) => !isMarked[i]);
}

/** Null if the marker is not there. */
async function readTrainer(path: string): Promise<TrainerState | null> {
  const text = await readFile(join(path, MARKER), 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  });
  return text === null ? null : parseTrainer(text, join(path, MARKER));
}

/** What to do about a checkpoint that is damaged, in a sentence. */
export function withoutIt(path: string): string {
  return `Move ${path} elsewhere to go on from the checkpoint before it, or say --overwrite to start again.`;
}

/** Model folder inside a checkpoint. */
export function checkpointModel(path: string): string {
  return join(path, MODEL);
}

/** Folder of the low-rank terms inside a checkpoint. */
export function checkpointAdapter(path: string): string {
  return join(path, ADAPTER);
}

/** What a checkpoint stores of training, by name; the caller closes it. */
export async function openStored(
  path: string,
  hasAdapter: boolean,
): Promise<{readonly stored: StoredValues; close(): Promise<void>}> {
  const adapter = hasAdapter ? await openAdapter(checkpointAdapter(path)) : null;
  const optimizer = await openTensors(join(path, OPTIMIZER));
  return {
    stored: (name) => (adapter?.tensors.has(name) ? adapter.tensors : optimizer).read(name),
    close: async () => {
      await adapter?.tensors.close();
      await optimizer.close();
    },
  };
}

/** Removes all but the newest `keep` checkpoints, the newest to go on from, and the best one of both. */
export async function pruneCheckpoints(run: string, keep: number, best: number | null): Promise<void> {
  const newest = await latestCheckpoint(run);
  const kept = [newest?.trainer.step, best === null ? null : newest?.trainer.best?.step, best].flatMap((step) =>
    typeof step === 'number' ? [checkpointName(step)] : [],
  );
  const old = (await checkpointsOf(run)).slice(0, -keep).filter((name) => !kept.includes(name));
  for (const name of old) await removeCheckpoint(join(run, name));
}

/** Removes checkpoints after a step, which only light ones are: a run that goes on makes them again. */
export async function removeAfter(run: string, step: number): Promise<void> {
  const later = (await checkpointsOf(run)).filter((name) => stepOf(name) > step);
  for (const name of later) await removeCheckpoint(join(run, name));
}

/** The marker goes first, so that half of a checkpoint is none. */
async function removeCheckpoint(path: string): Promise<void> {
  await rm(join(path, MARKER), {force: true});
  await rm(path, {recursive: true});
}

function stepOf(name: string): number {
  return Number(name.slice('step-'.length));
}

async function checkpointsOf(run: string): Promise<string[]> {
  const names = await readdir(run);
  return names.filter((name) => /^step-\d{6,}$/.test(name)).sort((a, b) => stepOf(a) - stepOf(b));
}

async function saveSlots(folder: string, state: TrainState): Promise<void> {
  const slots = state.trained.flatMap(({path, slots: kept}) =>
    [...kept].map(([name, variable]) => [`${path}.${name}`, variable] as const),
  );
  const means = [...meansOf(state)].map(([path, ema]) => [`${path}.ema`, ema] as const);
  await writeVariables(folder, new Map([...slots, ...means]));
}

function parseTrainer(text: string, path: string): TrainerState {
  const json = parseJson(text);
  if (json.kind === 'fault') {
    throw new ModelError(`${path}:${json.line}:${json.column}: ${json.reason}.`, {hint: withoutIt(dirname(path))});
  }
  const parsed = trainerState.safeParse(json.value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new ModelError(
    `${path}: not a trainer state this version can read: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}.`,
    {hint: 'Go on with the version of downcycle that wrote it, or say --overwrite to start again.'},
  );
}
