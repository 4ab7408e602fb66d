import {readFile, readdir, stat} from 'node:fs/promises';
import {join} from 'node:path';
import type {Dtype} from '../format/dtype.js';
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import {readRunLog} from '../format/run-log.js';
import type {EndRecord, EvalRecord, RunRecord, StepRecord} from '../format/run-record.js';
import {type TensorInfo, tensorBytes} from '../format/safetensors-header.js';
import {openTokenShard} from '../format/token-shard.js';
import type {ShardMetadata} from '../format/token-shard-metadata.js';
import {type Architecture, countParameters, type ParameterCount} from '../model/architecture.js';
import {architectureFromConfig} from '../model/config.js';
import {checkTensors} from '../model/load.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {DataError, UsageError} from '../util/errors.js';

/** What a model folder holds. */
export interface ModelInspection {
  readonly kind: 'model';
  readonly path: string;
  readonly architecture: Architecture;
  readonly parameters: ParameterCount;
  readonly tensors: readonly Pick<TensorInfo, 'name' | 'dtype' | 'shape'>[];
  readonly bytes: number;
  /** How many tensors there are of each dtype. */
  readonly dtypes: Readonly<Partial<Record<Dtype, number>>>;
  /** Null if the folder has no tokenizer.json. */
  readonly tokenizer: TokenizerSummary | null;
  /** `downcycle.json` as it stands: how a mixture was made. Null if the folder has none. */
  readonly provenance: unknown;
  /** What the files hold that the architecture has no place for, one line each. */
  readonly warnings: readonly string[];
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
  readonly evals: readonly EvalRecord[];
  /** Names of the checkpoint folders that are there. */
  readonly checkpoints: readonly string[];
  /** Null while it goes on, or if it was killed. */
  readonly end: EndRecord['reason'] | null;
}

/** What was found at a path. */
export type Inspection = ModelInspection | ShardInspection | PreparedInspection | RunInspection;

/**
 * Says what a model folder, checkpoint, run folder, token shard or prepared folder holds; reads no weights.
 *
 * @throws UsageError if nothing is there or it is none of these; DataError, ModelError if it is damaged.
 */
export async function inspect(path: string): Promise<Inspection> {
  const found = await stat(path).catch(() => null);
  if (!found) throw new UsageError(`${path}: there is no such file or folder.`);
  if (found.isFile()) return path.endsWith('.arrow') ? inspectShard(path) : refuse(path);
  const names = new Set(await readdir(path));
  if (names.has('config.json')) return inspectModel(path);
  if (names.has('log.jsonl')) return inspectRun(path, names);
  // A checkpoint: the marker is written last, so a torn one is not taken for whole.
  if (names.has('trainer.json')) return inspectModel(join(path, 'model'));
  const shards = [...names].filter((name) => name.endsWith('.arrow')).sort();
  return shards.length > 0 ? inspectPrepared(path, shards) : refuse(path);
}

function refuse(path: string): never {
  throw new UsageError(`${path} is nothing that downcycle reads or writes.`, {
    hint: 'Give a Hugging Face model folder, a run folder, a checkpoint, an .arrow file or a folder of them.',
  });
}

async function inspectModel(path: string): Promise<ModelInspection> {
  const folder = await openModelFolder(path);
  try {
    const architecture = architectureFromConfig(folder.config, join(path, 'config.json'));
    const tensors = folder.tensors.names.map((name) => folder.tensors.info(name));
    return {
      kind: 'model',
      path,
      architecture,
      parameters: countParameters(architecture),
      tensors: tensors.map(({name, dtype, shape}) => ({name, dtype, shape})),
      bytes: tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
      dtypes: countBy(tensors.map(({dtype}) => dtype)),
      tokenizer: await summariseTokenizer(folder),
      provenance: await readProvenance(path),
      warnings: checkTensors(folder.tensors, architecture),
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

async function readProvenance(path: string): Promise<unknown> {
  const text = await readFile(join(path, 'downcycle.json'), 'utf8').catch(() => null);
  if (text === null) return null;
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new DataError(`${join(path, 'downcycle.json')}: this is not JSON.`, {cause});
  }
}

function countBy<K extends string>(keys: readonly K[]): Partial<Record<K, number>> {
  const counts: Partial<Record<K, number>> = {};
  for (const key of keys) counts[key] = (counts[key] ?? 0) + 1;
  return counts;
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

async function inspectRun(path: string, names: ReadonlySet<string>): Promise<RunInspection> {
  const log = join(path, 'log.jsonl');
  const records = await readRunLog(log);
  const head = records.find((record) => record.kind === 'run');
  if (!head) throw new DataError(`${log}: no run record; the head of the log is missing.`);
  const last = records.findLast(({kind}) => kind === 'step' || kind === 'resume' || kind === 'end');
  return {
    kind: 'run',
    path,
    head,
    lastStep: records.findLast((record): record is StepRecord => record.kind === 'step') ?? null,
    evals: records.filter((record): record is EvalRecord => record.kind === 'eval'),
    checkpoints: [...names].filter((name) => /^step-\d{6,}$/.test(name)).sort(),
    end: last?.kind === 'end' ? last.reason : null,
  };
}
