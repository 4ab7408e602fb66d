// What a teacher foresees of each row of text, asked once and kept: later epochs and other runs read it.
import {createHash} from 'node:crypto';
import {join} from 'node:path';
import {shardFingerprint} from '../data/fingerprint.js';
import type {Batch} from '../data/loader.js';
import type {SourceShards} from '../data/shards.js';
import {compile} from '../engine/compile.js';
import type {EngineInfo} from '../engine/start.js';
import * as tf from '../engine/tfjs.js';
import {openRowCache, type RowCache} from '../format/row-cache.js';
import {weightsOf} from '../model/adapter.js';
import {batchTensor, splitBatch} from '../model/batch.js';
import {decode, headOf} from '../model/decoder.js';
import {loadModel, type Model} from '../model/model.js';
import {topWords} from '../op/linear-distillation.js';
import {fingerprintOf} from './inputs.js';

/** The words that a teacher foresees. */
export interface TeacherWords {
  /** Those of a batch, float32 [2, T, K]: ids, then logarithms of their probabilities. */
  of(batch: Batch): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Whose words, how many of each place, and of what text. */
export interface TeacherWordsOptions {
  /** Folder of the teacher; its weights are loaded once a row is asked for that nobody has asked about. */
  readonly from: string;
  readonly topK: number;
  readonly temperature: number;
  readonly sequenceLength: number;
  /** Rows that are asked about together: the last bits of an answer hang on it, as they do on the engine. */
  readonly sequences: number;
  readonly engine: EngineInfo;
  readonly sources: readonly SourceShards[];
  /** As in {@link shardFingerprint}. */
  readonly damaged: 'stop' | 'skip';
  /** Folder of the files, one a source. */
  readonly folder: string;
}

/** Opens what is kept; the caller closes it. */
export async function openTeacherWords(options: TeacherWordsOptions): Promise<TeacherWords> {
  const width = 2 * options.sequenceLength * options.topK;
  const caches: RowCache[] = [];
  const teacher = createTeacher(options);
  const close = async (): Promise<void> => {
    teacher.dispose();
    for (const cache of caches) await cache.close();
  };
  try {
    const {topK, temperature, sequences, engine} = options;
    const asked = [
      await fingerprintOf(options.from),
      topK,
      temperature,
      sequences,
      engine.engine,
      engine.device,
      engine.precision,
    ];
    for (const {name, train} of options.sources) {
      const key = [await shardFingerprint(train, options.damaged), ...asked];
      const hash = createHash('sha256').update(JSON.stringify(key)).digest('hex').slice(0, 16);
      const path = join(options.folder, `${name}.teacher-${hash}.safetensors`);
      caches.push(await openRowCache(path, train.rows, width));
    }
    return {of: (batch) => wordsOf(batch, caches, teacher, options), close};
  } catch (error) {
    await close();
    throw error;
  }
}

async function wordsOf(
  batch: Batch,
  caches: readonly RowCache[],
  teacher: Teacher,
  {sequenceLength: S, topK}: TeacherWordsOptions,
): Promise<Float32Array> {
  const places = batch.rows.map((row, b) => ({row, cache: caches[batch.sources[b] ?? 0] as RowCache}));
  const known = await Promise.all(places.map(({row, cache}) => cache.read(row)));
  const words = known.every((row) => row !== null) ? known : await askAndKeep();
  const half = S * topK;
  const joined = new Float32Array(2 * words.length * half);
  for (const [b, row] of words.entries()) {
    joined.set(row.subarray(0, half), b * half);
    joined.set(row.subarray(half), (words.length + b) * half);
  }
  return joined;

  /** The whole batch is asked about, so that no row hangs on how many others were known; what was known stays. */
  async function askAndKeep(): Promise<Float32Array[]> {
    const asked = await teacher.ask(batch);
    const kept: Float32Array[] = [];
    for (const [b, {row, cache}] of places.entries()) {
      const before = (await cache.read(row)) ?? null; // a row may stand twice in a batch
      const now = before ?? rowOf(asked, b, places.length);
      if (!before) await cache.write(row, now);
      kept.push(now);
    }
    return kept;
  }
}

/** Row b of [2, B, S·K], as it is kept: [2, S·K]. */
function rowOf(asked: Float32Array, b: number, B: number): Float32Array {
  const half = asked.length / 2 / B;
  const row = new Float32Array(2 * half);
  row.set(asked.subarray(b * half, (b + 1) * half));
  row.set(asked.subarray((B + b) * half, (B + b + 1) * half), half);
  return row;
}

/** A model that is loaded at the first question. */
interface Teacher {
  /** float32 [2, T, K] of a batch. */
  ask(batch: Batch): Promise<Float32Array>;
  dispose(): void;
}

function createTeacher({from, topK, temperature, sequenceLength, engine}: TeacherWordsOptions): Teacher {
  let model: Model | null = null;
  const open = async () => {
    const opened = await loadModel(from);
    model = opened;
    return compile(
      (batch_NBS: tf.Tensor3D): {words: tf.Tensor} => {
        const weights = weightsOf(opened);
        const {hidden_TD} = decode(weights, opened.architecture, splitBatch(batch_NBS).input);
        const {word_TK, logShare_TK} = topWords(hidden_TD, headOf(weights), {topK, temperature});
        return {words: tf.stack([tf.cast(word_TK, 'float32'), logShare_TK])};
      },
      {name: 'teacher_words', precision: engine.precision},
    );
  };
  let opening: ReturnType<typeof open> | null = null;
  let compiled: Awaited<ReturnType<typeof open>> | null = null;
  return {
    ask: async (batch) => {
      opening ??= open();
      compiled = await opening;
      const batch_NBS = batchTensor(batch, sequenceLength);
      const {words} = await compiled(batch_NBS);
      try {
        return await words.data<'float32'>();
      } finally {
        tf.dispose([batch_NBS, words]);
      }
    },
    dispose: () => {
      compiled?.dispose();
      model?.dispose();
    },
  };
}
