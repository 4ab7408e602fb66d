import type {SourceShards} from '../data/shards.js';
import type {EngineInfo} from '../engine/start.js';
import {loadModel, type Model} from '../model/model.js';
import {readArchitecture} from '../model/read-architecture.js';
import {loadTokenizer, type Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, ModelError} from '../util/errors.js';
import type {TrainRun} from './session.js';
import {openTeacherWords, type TeacherWords} from './teacher-words.js';

/** What a run learns from besides its text: a model that runs in every step, or the words it foresees, which are kept. */
export type RunTeacher =
  | {readonly kind: 'live'; readonly model: Model}
  | {readonly kind: 'top'; readonly words: TeacherWords};

/** What a teacher is opened for. */
export interface Pupil {
  readonly run: TrainRun;
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly sources: readonly SourceShards[];
  readonly engine: EngineInfo;
}

/**
 * Opens the teacher of a run; null if it names none. The caller closes it.
 *
 * @throws ModelError if it has other words or another tokenizer: its words would mean something else.
 */
export async function openTeacher({run, model, tokenizer, sources, engine}: Pupil): Promise<RunTeacher | null> {
  const {distill} = run.train;
  if (!distill) return null;
  const {from, temperature, top: topK} = distill;
  await refuseStranger(from, model, tokenizer);
  await refuseShort(from, run.data.sequenceLength);
  if (topK === undefined) return {kind: 'live', model: await loadModel(from)};
  const {sequenceLength, damaged} = run.data;
  const options = {
    from,
    topK: Math.min(topK, model.architecture.vocab),
    temperature,
    sequenceLength,
    sequences: run.train.batch.sequences,
    engine,
    sources,
    damaged,
  };
  return {kind: 'top', words: await openTeacherWords({...options, folder: run.shards})};
}

/** Frees what {@link openTeacher} opened. */
export async function closeTeacher(teacher: RunTeacher | null): Promise<void> {
  if (teacher?.kind === 'live') teacher.model.dispose();
  if (teacher?.kind === 'top') await teacher.words.close();
}

async function refuseStranger(from: string, {architecture, path}: Model, {fingerprint}: Tokenizer): Promise<void> {
  const {vocab} = await readArchitecture(from);
  const isSame = vocab === architecture.vocab && (await loadTokenizer(from)).fingerprint === fingerprint;
  if (isSame) return;
  const why = vocab === architecture.vocab ? 'another tokenizer' : `${vocab} words instead of ${architecture.vocab}`;
  throw new ModelError(`train.distill.from: ${from} has ${why} and cannot teach ${path}.`, {
    hint: 'Name a model of the same tokenizer, such as the dense parent.',
  });
}

async function refuseShort(from: string, sequenceLength: number): Promise<void> {
  const {contextLength} = await readArchitecture(from);
  if (sequenceLength <= contextLength) return;
  throw new DataError(
    `train.distill.from: rows of ${sequenceLength} tokens are asked for, ${from} has ${contextLength} positions (max_position_embeddings).`,
    {hint: `Lower data.sequenceLength to ${contextLength} or less.`},
  );
}
