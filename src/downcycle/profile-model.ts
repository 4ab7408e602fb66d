// Watches a dense model at work: which FFN neurons react to which text (ExpertWeaver, section 3.1).
import {createHash} from 'node:crypto';
import * as tf from '@tensorflow/tfjs';
import type {DataOptions} from '../data/options.js';
import {closeShards, ensureShards, type SourceShards} from '../data/shards.js';
import {type Compiled, compile} from '../engine/compile.js';
import {openModelFolder} from '../format/model-folder.js';
import type {TokenShard} from '../format/token-shard.js';
import {decode} from '../model/decoder.js';
import {loadModel, type Model} from '../model/model.js';
import {mapTree} from '../model/parameters.js';
import {matMul} from '../op/mat-mul.js';
import {silu} from '../op/swiglu.js';
import {untaped} from '../op/untaped.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {ConfigError, DataError, ModelError} from '../util/errors.js';
import {modelFingerprint} from './convert-fingerprint.js';
import type {ProfileOptions} from './options.js';
import type {Profile} from './profile-file.js';
import type {LayerProfile} from './statistics.js';

/** What is profiled, and on what. The engine must have been started. */
export interface ProfileModelOptions {
  /** Folder of the dense model. */
  readonly model: string;
  readonly data: DataOptions;
  readonly profile: ProfileOptions;
  /** Where packed shards are kept. */
  readonly shards: string;
  /** Where the config says how long a sample or a row is, for messages. */
  readonly where?: string;
}

/** Tasks done so far, of all. */
export type ProfileProgress = (done: number, total: number) => void;

/**
 * Runs calibration samples of every source through a dense model and keeps, for each sample and FFN neuron, the signed
 * mean over tokens of `silu(x·gate)`.
 *
 * @throws ModelError if the model is a mixture already; ConfigError if a sample is longer than a packed row; DataError if
 * a source has too few rows.
 */
export async function profileModel(options: ProfileModelOptions, onProgress?: ProfileProgress): Promise<Profile> {
  const {data, profile, where = 'profile'} = options;
  if (profile.tokensPerSample > data.sequenceLength) {
    throw new ConfigError(
      `${where}: profile.tokensPerSample (${profile.tokensPerSample}) is more than data.sequenceLength (${data.sequenceLength}).`,
      {
        hint: `A sample is the beginning of a packed row: set profile.tokensPerSample to ${data.sequenceLength} or less, or raise data.sequenceLength.`,
      },
    );
  }
  const model = await loadModel(options.model);
  const tokenizer = await loadTokenizer(options.model);
  const sources = await ensureShards(data, tokenizer, options.shards);
  try {
    const ffnWidth = denseWidth(model);
    const samples = await Promise.all(sources.map((source) => calibrationRows(source, profile)));
    const layers = await watch(model, samples, profile, onProgress);
    return {
      layers,
      metadata: {
        tasks: sources.map(({name}) => name),
        tokenHash: hashTokens(samples),
        options: profile,
        model: {fingerprint: await fingerprintOf(model), layers: layers.length, ffnWidth},
      },
    };
  } finally {
    await closeShards(sources);
    model.dispose();
  }
}

function denseWidth({architecture: {ffn}, path}: Model): number {
  const [first] = ffn;
  if (first?.kind === 'dense') return first.width;
  throw new ModelError(`${path} is a mixture of experts already.`, {hint: 'Profile the dense model it was made of.'});
}

/** The beginnings of rows spread evenly over the training rows of a source, int32 [samples, tokens]. */
export async function calibrationRows(
  {name, train}: SourceShards,
  {samplesPerTask, tokensPerSample}: ProfileOptions,
): Promise<Int32Array> {
  if (train.rows < samplesPerTask) {
    throw new DataError(`Source ${name} has ${train.rows} rows, profile.samplesPerTask asks for ${samplesPerTask}.`, {
      hint: 'Lower samplesPerTask or data.sequenceLength, or give more text.',
    });
  }
  const samples = new Int32Array(samplesPerTask * tokensPerSample);
  for (let i = 0; i < samplesPerTask; i++) {
    samples.set(
      await beginningOf(train, Math.floor((i * train.rows) / samplesPerTask), tokensPerSample),
      i * tokensPerSample,
    );
  }
  return samples;
}

async function beginningOf(shard: TokenShard, row: number, tokens: number): Promise<Int32Array> {
  return (await shard.readRows(row, row + 1)).tokens.subarray(0, tokens);
}

type Watch = Compiled<[tf.Tensor2D], {means: tf.Tensor[]}>;

async function watch(
  model: Model,
  samples: readonly Int32Array[],
  {samplesPerTask, tokensPerSample}: ProfileOptions,
  onProgress?: ProfileProgress,
): Promise<LayerProfile[]> {
  const run = compileWatch(model);
  try {
    const byTask: Float32Array[][] = [];
    for (const [task, tokens] of samples.entries()) {
      byTask.push(await meansOf(run, tf.tensor2d(tokens, [samplesPerTask, tokensPerSample], 'int32')));
      onProgress?.(task + 1, samples.length);
    }
    const taskOfSample_J = samples.flatMap((_, task) => new Array<number>(samplesPerTask).fill(task));
    return model.architecture.ffn.map((layout, l) => ({
      gateMean_JF: concat(byTask.map((layers) => layers[l] ?? new Float32Array(0))),
      taskOfSample_J,
      numNeurons: layout.kind === 'dense' ? layout.width : 0,
    }));
  } finally {
    run.dispose();
  }
}

/** `token_JS → for each layer, the mean over S of silu(x·gate), [J, F]`. */
function compileWatch({architecture, parameters}: Model): Watch {
  return compile(
    (token_JS: tf.Tensor2D) => {
      const [J, S] = token_JS.shape;
      const params = mapTree(parameters, (variable) => variable.read());
      const means: tf.Tensor[] = [];
      const onFfnInput = (layer: number, x_TD: tf.Tensor2D): void => {
        const ffn = params.layers[layer]?.ffn;
        if (ffn?.kind !== 'dense') throw new Error(`layer ${layer} is not dense`);
        const gate_TF = untaped(() => silu(matMul(x_TD, ffn.gate as tf.Tensor2D)));
        means.push(tf.mean(tf.reshape(gate_TF, [J, S, -1]), 1));
      };
      decode(params, architecture, {token_BS: token_JS}, {onFfnInput});
      return {means};
    },
    {name: 'profile'},
  );
}

async function meansOf(run: Watch, tokens: tf.Tensor2D): Promise<Float32Array[]> {
  const {means} = await run(tokens);
  try {
    return await Promise.all(means.map((mean) => mean.data<'float32'>()));
  } finally {
    tf.dispose([tokens, ...means]);
  }
}

function concat(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, {length}) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** SHA-256 over the calibration tokens of all tasks. */
export function hashTokens(samples: readonly Int32Array[]): string {
  const hash = createHash('sha256');
  for (const tokens of samples) hash.update(tokens);
  return hash.digest('hex');
}

async function fingerprintOf({path, architecture}: Model): Promise<string> {
  const folder = await openModelFolder(path);
  try {
    return await modelFingerprint(folder, architecture);
  } finally {
    await folder.close();
  }
}
