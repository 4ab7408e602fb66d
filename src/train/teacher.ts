import type {SourceShards} from '../data/shards.js';
import type {EngineInfo} from '../engine/start.js';
import {loadModel, type Model} from '../model/model.js';
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
  readonly sources: readonly SourceShards[];
  readonly engine: EngineInfo;
}

/** Opens the teacher of a run that {@link requireTrainable} let pass; null if it names none. The caller closes it. */
export async function openTeacher({run, model, sources, engine}: Pupil): Promise<RunTeacher | null> {
  const {distill} = run.train;
  if (!distill) return null;
  const {from, temperature, top: topK} = distill;
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
