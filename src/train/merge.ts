// A model and the low-rank terms that were trained beside it, added up: one parameter in memory at a time.
import {basename, isAbsolute, join, resolve} from 'node:path';
import type {FloatDtype} from '../format/dtype.js';
import {type ModelFolder, openModelFolder} from '../format/model-folder.js';
import type {TensorStore} from '../format/tensor-store.js';
import {adapterShapes} from '../model/adapter.js';
import {architectureFromConfig} from '../model/config.js';
import {checkTensors, readParameter} from '../model/load.js';
import {matrixDtype} from '../model/matrix-dtype.js';
import {leavesOf, type ParameterSpec, parameterSpecs} from '../model/parameters.js';
import {saveModel} from '../model/save.js';
import {ModelError, UsageError} from '../util/errors.js';
import {exists} from '../util/exists.js';
import {type Adapter, openAdapter} from './adapter-folder.js';
import {checkpointAdapter, checkpointModel, newestCheckpoint} from './checkpoint.js';
import {fingerprintOf} from './inputs.js';
import {isSelectionBias, withBiases} from './selection-bias.js';

/** What is added to what. */
export interface MergeOptions {
  /** A run folder, of which the newest checkpoint is taken, a checkpoint, or the `adapter` folder inside one. */
  readonly adapter: string;
  /** Folder to write; must not exist. */
  readonly out: string;
  /** Folder of the model that the terms stand beside; the one that was trained from if absent. */
  readonly base?: string | undefined;
  /** What its matrices are stored in, that of the base if absent: 16 bits round away part of a small change. */
  readonly dtype?: FloatDtype | undefined;
}

/** What was merged. */
export interface Merged {
  readonly base: string;
  readonly dtype: FloatDtype;
  /** Matrices that a term was added to. */
  readonly matrices: number;
  /** Parameters that were trained whole, and replace those of the base. */
  readonly replaced: number;
}

/**
 * Writes the model that training with low-rank terms made.
 *
 * @throws UsageError if there is no such folder, a run has no checkpoint, or its model is whole already; ModelError if the
 * folder holds no low-rank terms, or the base is gone, another, or one they do not fit; EnvironmentError if `out` exists.
 */
export async function mergeAdapter({adapter: path, out, base, dtype}: MergeOptions): Promise<Merged> {
  const adapter = await openAdapter(await adapterFolder(path));
  try {
    if (base === undefined) await requireBase(adapter.record); // who names a base means it
    const folder = await openModelFolder(base ?? adapter.record.base);
    try {
      return await mergeInto(folder, adapter, {out, dtype});
    } finally {
      await folder.close();
    }
  } finally {
    await adapter.tensors.close();
  }
}

/** @throws ModelError if the base is not where it lay, or its weights are others than those that the terms were trained beside. */
async function requireBase({fingerprint, base}: Adapter['record']): Promise<void> {
  if (!(await exists(base))) {
    const from = isAbsolute(base) ? '' : ', which is relative to where training was started';
    throw new ModelError(`${base} is not there: the run recorded it as the model that it trained from${from}.`, {
      hint: 'Say where that model is with --base.',
    });
  }
  if (fingerprint === undefined || (await fingerprintOf(base)) === fingerprint) return;
  throw new ModelError(`${base} holds other weights than those that the terms were trained beside.`, {
    hint: 'Say where those are with --base, or convert the model again as it was.',
  });
}

async function mergeInto(
  folder: ModelFolder,
  {record, tensors}: Adapter,
  {out, dtype: asked}: Pick<MergeOptions, 'out' | 'dtype'>,
): Promise<Merged> {
  const found = architectureFromConfig(folder.config, folder.configFile);
  await checkTensors(folder.tensors, found);
  const architecture = tensors.names.some(isSelectionBias) ? withBiases(found) : found;
  const specs = leavesOf(parameterSpecs(architecture));
  const scale = record.alpha / record.rank;
  const dtype = asked ?? matrixDtype(folder, architecture);
  requireFit(tensors, specs, record.rank, folder.path);
  await saveModel(out, {
    architecture,
    config: folder.config,
    dtype,
    ...{tokenizerFrom: folder.path, originFrom: folder.path},
    read: async (spec) =>
      tensors.has(spec.path)
        ? tensors.read(spec.path)
        : addTerm(await readParameter(folder, architecture, spec), spec, tensors, scale),
  });
  return {
    base: folder.path,
    dtype,
    matrices: specs.filter(({path}) => tensors.has(factor(path, 'a'))).length,
    replaced: specs.filter(({path}) => tensors.has(path)).length,
  };
}

/** A run, a checkpoint or the folder of low-rank terms itself. */
async function adapterFolder(path: string): Promise<string> {
  if (!(await exists(path))) throw new UsageError(`${path} is not there.`);
  if (await exists(join(path, 'log.jsonl'))) {
    const newest = await newestCheckpoint(path).catch(byName);
    if (newest !== null) return adapterOf(newest);
    throw new UsageError(`${path} is a run without a checkpoint.`, {hint: 'Train it on with --resume first.'});
  }
  return basename(resolve(path)).startsWith('step-') ? adapterOf(path) : path;
}

/** @throws the error of a checkpoint whose trainer state cannot be read; merging does without it. */
function byName(error: unknown): never {
  if (!(error instanceof ModelError)) throw error;
  throw new ModelError(error.message, {hint: 'Give the folder of that checkpoint instead of the run.', cause: error});
}

async function adapterOf(checkpoint: string): Promise<string> {
  const [adapter, model] = [checkpointAdapter(checkpoint), checkpointModel(checkpoint)];
  if ((await exists(adapter)) || !(await exists(model))) return adapter;
  throw new UsageError(`${checkpoint} holds no low-rank terms: the run trained weights themselves.`, {
    hint: `There is nothing to merge: ${model} is the model.`,
  });
}

/** @throws ModelError if something was trained that the base has not, or of another shape. */
function requireFit(tensors: TensorStore, specs: readonly ParameterSpec[], rank: number, base: string): void {
  const shapes = new Map(
    specs.flatMap((spec) => {
      const {a, b} = adapterShapes(spec, rank);
      return [
        [spec.path, spec.shape] as const,
        [factor(spec.path, 'a'), a] as const,
        [factor(spec.path, 'b'), b] as const,
      ];
    }),
  );
  for (const name of tensors.names) {
    const [found, wanted] = [tensors.info(name).shape, shapes.get(name)];
    if (String(found) === String(wanted)) continue;
    const what = wanted ? `[${wanted.join(', ')}] there` : 'not there';
    throw new ModelError(`${tensors.path}: ${name} is [${found.join(', ')}], and ${what} in ${base}.`, {
      hint: 'Name the model that was trained from with --base.',
    });
  }
}

/** `base + scale · a·b`, matrix by matrix of a stack, summed in float64. */
async function addTerm(
  base: Float32Array,
  {path, shape}: ParameterSpec,
  tensors: TensorStore,
  scale: number,
): Promise<Float32Array> {
  if (!tensors.has(factor(path, 'a'))) return base;
  const [a, b] = [await tensors.read(factor(path, 'a')), await tensors.read(factor(path, 'b'))];
  const [rows = 0, columns = 0] = shape.slice(-2);
  const rank = tensors.info(factor(path, 'a')).shape.at(-1) ?? 0;
  const sum = new Float64Array(columns);
  for (let row = 0; row < base.length / columns; row++) {
    sum.fill(0);
    const firstOfB = Math.floor(row / rows) * rank * columns;
    for (let k = 0; k < rank; k++) {
      const weight = a[row * rank + k] as number;
      for (let j = 0, at = firstOfB + k * columns; j < columns; j++, at++) {
        sum[j] = (sum[j] as number) + weight * (b[at] as number);
      }
    }
    for (let j = 0, at = row * columns; j < columns; j++, at++) {
      base[at] = (base[at] as number) + scale * (sum[j] as number);
    }
  }
  return base;
}

function factor(path: string, which: 'a' | 'b'): string {
  return `${path}.${which}`;
}
