import {existsSync} from 'node:fs';
import {readdir, stat} from 'node:fs/promises';
import {basename, dirname, join, resolve} from 'node:path';
import {countKept, readKeptNeurons} from '../downcycle/dive/kept-neurons.js';
import {countNeurons, NEURONS_FILE, type NeuronCount, readNeuronMaps} from '../downcycle/neuron-maps.js';
import {type Profile, readProfile} from '../downcycle/profile-file.js';
import {PROVENANCE_FILE, type Provenance, readProvenance} from '../downcycle/provenance.js';
import {beginsAsGguf} from '../format/gguf/file.js';
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import {readRunLog} from '../format/run-log.js';
import type {EndRecord, EvalRecord, RunRecord, StepRecord} from '../format/run-record.js';
import {beginsAsSafetensors} from '../format/safetensors.js';
import {countStored, storedType, type TensorInfo, tensorBytes} from '../format/safetensors-header.js';
import {openTokenShard} from '../format/token-shard.js';
import type {ShardMetadata} from '../format/token-shard-metadata.js';
import type {OnDownload} from '../hub/download.js';
import {isHubName, resolveModel} from '../hub/resolve.js';
import {type Architecture, countParameters, type ParameterCount} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';
import {checkTensors} from '../model/load.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {DataError, UsageError} from '../util/errors.js';

/** What a model folder or a GGUF file holds. */
export interface ModelInspection {
  readonly kind: 'model';
  readonly path: string;
  readonly architecture: Architecture;
  readonly parameters: ParameterCount;
  readonly tensors: readonly TensorSummary[];
  readonly bytes: number;
  /** How many tensors there are of each dtype, or of each way that a GGUF file packs numbers. */
  readonly dtypes: Readonly<Record<string, number>>;
  /** Null if there is no tokenizer.json, and none can be made of what a GGUF file holds. */
  readonly tokenizer: TokenizerSummary | null;
  /** How it was made, or the model that it was trained from. Null if the folder has no record of it. */
  readonly provenance: Provenance | null;
  /** Where the neurons of each layer's dense FFN went. Null if the folder has no map of them. */
  readonly neurons: readonly NeuronCount[] | null;
  /** Of each layer, how many neurons of the dense FFN 0, 1, ... E experts keep. Null unless they are pruned copies of it. */
  readonly kept: readonly (readonly number[])[] | null;
  /** Whether it was trained since it was made. */
  readonly isTrained: boolean;
  /** What the files hold that the architecture has no place for, one line each. */
  readonly warnings: readonly string[];
}

/** A tensor by its name in Hugging Face folders. */
interface TensorSummary extends Pick<TensorInfo, 'name' | 'shape'> {
  /** As its file has it: of GGUF files, how it is packed. */
  readonly dtype: string;
}

/** A tokenizer, in numbers. */
interface TokenizerSummary {
  readonly vocabSize: number;
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly fingerprint: string;
}

/** What a shard of packed tokens holds. */
export interface ShardInspection {
  readonly kind: 'shard';
  readonly path: string;
  readonly metadata: ShardMetadata;
  readonly columns: readonly string[];
  readonly bytes: number;
}

/** What a folder that `prepare` made holds. */
export interface PreparedInspection {
  readonly kind: 'prepared';
  readonly path: string;
  readonly shards: readonly ShardInspection[];
}

/** How far a run is. */
export interface RunInspection {
  readonly kind: 'run';
  readonly path: string;
  readonly head: RunRecord;
  /** Null before the first step. */
  readonly lastStep: StepRecord | null;
  /** Of the weights themselves: the first split of the log. */
  readonly evals: readonly EvalRecord[];
  /** Names of the checkpoint folders that are there. */
  readonly checkpoints: readonly string[];
  /** Null while it goes on, or if it was killed. */
  readonly end: EndRecord['reason'] | null;
}

/** The runs of an experiment's folder. */
export interface ExperimentInspection {
  readonly kind: 'experiment';
  readonly path: string;
  readonly runs: readonly RunInspection[];
}

/** What a file that `profile` made holds. */
export interface ProfileInspection {
  readonly kind: 'profile';
  readonly path: string;
  readonly profile: Profile;
}

/** What was found at a path. */
export type Inspection =
  | ModelInspection
  | ShardInspection
  | PreparedInspection
  | RunInspection
  | ExperimentInspection
  | ProfileInspection;

/**
 * Says what a model folder, checkpoint, run folder or its log, folder of runs, profile, token shard or prepared folder
 * holds; reads no weights. So of a GGUF file.
 *
 * A model may be named as on the hub; it is downloaded if it is not in the cache.
 * @throws UsageError if nothing is there or it is none of these; DataError, ModelError if it is damaged.
 */
export async function inspect(given: string, onProgress?: OnDownload): Promise<Inspection> {
  const path = (await isHubName(given)) ? (await resolveModel(given, {onProgress})).path : given;
  const found = await stat(path).catch(() => null);
  if (!found) throw new UsageError(`${path || 'An empty path'}: there is no such file or folder.`);
  if (found.isFile()) return inspectFile(path);
  const names = new Set(await readdir(path));
  if (names.has('config.json')) return inspectModel(path);
  if (names.has(LOG)) return inspectRun(path);
  // A checkpoint: the marker is written last, so a torn one is not taken for whole.
  if (names.has(TRAINER)) return inspectModel(join(path, 'model'));
  const shards = [...names].filter((name) => name.endsWith('.arrow')).sort();
  if (shards.length > 0) return inspectPrepared(path, shards);
  const runs = [...names].filter((name) => existsSync(join(path, name, LOG))).sort();
  return runs.length > 0 ? inspectExperiment(path, runs) : refuse(path);
}

async function inspectFile(path: string): Promise<Inspection> {
  if (path.endsWith('.arrow')) return inspectShard(path);
  if (basename(path) === LOG) return inspectRun(dirname(path));
  if (await beginsAsGguf(path)) return inspectModel(path);
  if (path.endsWith('.safetensors') || (await beginsAsSafetensors(path))) return inspectSafetensors(path);
  return refuse(path);
}

async function inspectSafetensors(path: string): Promise<Inspection> {
  if (existsSync(join(dirname(path), 'config.json'))) return inspectModel(dirname(path));
  return {kind: 'profile', path, profile: await readProfile(path)};
}

async function inspectExperiment(path: string, names: readonly string[]): Promise<ExperimentInspection> {
  return {kind: 'experiment', path, runs: await Promise.all(names.map((name) => inspectRun(join(path, name))))};
}

const LOG = 'log.jsonl';
const TRAINER = 'trainer.json';

function refuse(path: string): never {
  throw new UsageError(`${path} is nothing that downcycle reads or writes.`, {
    hint: 'Give a Hugging Face model folder, a GGUF file, a run folder or a folder of runs, a checkpoint, a profile, an .arrow file or a folder of them.',
  });
}

async function inspectModel(path: string): Promise<ModelInspection> {
  const folder = await openModelFolder(path);
  try {
    const architecture = architectureFromConfig(folder.config, folder.configFile);
    const tensors = folder.tensors.names.map((name) => folder.tensors.info(name));
    return {
      kind: 'model',
      path,
      architecture,
      parameters: countParameters(architecture),
      tensors: tensors.map((tensor) => ({name: tensor.name, dtype: storedType(tensor), shape: tensor.shape})),
      bytes: tensors.reduce((sum, tensor) => sum + (tensor.packed?.bytes ?? tensorBytes(tensor)), 0),
      dtypes: countStored(tensors),
      tokenizer: await summariseTokenizer(folder),
      ...(await originOf(path)),
      warnings: await checkTensors(folder.tensors, architecture),
    };
  } finally {
    await folder.close();
  }
}

async function summariseTokenizer({path, tokenizerFiles}: ModelFolder): Promise<TokenizerSummary | null> {
  if (!tokenizerFiles.includes('tokenizer.json')) return null;
  const {vocabSize, bosId, eosId, fingerprint} = await loadTokenizer(path);
  return {vocabSize, bosId, eosId, fingerprint};
}

/** Folders of other makers have no record, and those of older versions no map. */
async function originOf(path: string): Promise<Pick<ModelInspection, 'provenance' | 'neurons' | 'kept' | 'isTrained'>> {
  const provenance = existsSync(join(path, PROVENANCE_FILE)) ? await readProvenance(path) : null;
  const made = existsSync(join(path, NEURONS_FILE)) ? provenance : null;
  return {
    provenance,
    neurons: made?.kind === 'split' ? (await readNeuronMaps(path)).map(countNeurons) : null,
    kept:
      made?.kind === 'prune'
        ? (await readKeptNeurons(path)).map((experts) => countKept(experts, made.numNeurons))
        : null,
    isTrained: provenance?.trained ?? existsSync(join(dirname(resolve(path)), TRAINER)), // older versions did not say it
  };
}

async function inspectShard(path: string): Promise<ShardInspection> {
  const shard = await openTokenShard(path);
  try {
    const {size} = await stat(path);
    return {kind: 'shard', path, metadata: shard.metadata, columns: shard.columns, bytes: size};
  } finally {
    await shard.close();
  }
}

async function inspectPrepared(path: string, names: readonly string[]): Promise<PreparedInspection> {
  return {kind: 'prepared', path, shards: await Promise.all(names.map((name) => inspectShard(join(path, name))))};
}

async function inspectRun(path: string): Promise<RunInspection> {
  const log = join(path, LOG);
  const records = await readRunLog(log);
  const head = records.find((record) => record.kind === 'run');
  if (!head) throw new DataError(`${log}: no run record; the head of the log is missing.`);
  const evals = records.filter((record): record is EvalRecord => record.kind === 'eval');
  const last = records.findLast(({kind}) => kind === 'step' || kind === 'resume' || kind === 'end');
  return {
    kind: 'run',
    path,
    head,
    lastStep: records.findLast((record): record is StepRecord => record.kind === 'step') ?? null,
    evals: evals.filter(({split}) => split === evals[0]?.split),
    checkpoints: (await readdir(path)).filter((name) => /^step-\d{6,}$/.test(name)).sort(),
    end: last?.kind === 'end' ? last.reason : null,
  };
}
