import {mkdir, rm, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {closeShards, ensureShards} from '../data/shards.js';
import {startEngine} from '../engine/start.js';
import {readRunLog, truncateAfterStep} from '../format/run-log.js';
import type {RunLogRecord} from '../format/run-record.js';
import {loadModel} from '../model/model.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {writeFileAtomic} from '../util/atomic.js';
import {EnvironmentError, UsageError} from '../util/errors.js';
import {checkpointModel, latestCheckpoint, openMoments} from './checkpoint.js';
import type {TrainEvent} from './event.js';
import {logPath, type Checkpoint, type Session, type TrainResult, type TrainRun} from './session.js';
import {createTrainState, disposeTrainState} from './state.js';
import {trainLoop} from './trainer.js';

/**
 * Trains as a run says, from its start or from its last checkpoint; a completed run is left as it is.
 *
 * @throws EnvironmentError if the run folder exists and neither resume nor overwrite was said; UsageError if a run to be
 * resumed has another config; DataError, ModelError for bad inputs. Nothing is written before all inputs are open.
 */
export async function train(
  run: TrainRun,
  onEvent: (event: TrainEvent) => void = () => undefined,
): Promise<TrainResult> {
  const done = await checkFolder(run);
  if (done) return done;
  const engine = await startEngine(run.engine);
  for (const text of engine.notes) onEvent({kind: 'note', text});
  const checkpoint = run.mode === 'resume' ? await findCheckpoint(run) : null;
  const model = await loadModel(checkpoint ? checkpointModel(checkpoint.path) : run.model);
  for (const text of model.warnings) onEvent({kind: 'note', text});
  try {
    const tokenizer = await loadTokenizer(model.path);
    const sources = await ensureShards(run.data, tokenizer, run.shards, (state) => onEvent({kind: 'pack', ...state}));
    try {
      return await trainSession({run, model, sources, engine, checkpoint}, onEvent);
    } finally {
      await closeShards(sources);
    }
  } finally {
    model.dispose();
  }
}

async function trainSession(session: Session, onEvent: (event: TrainEvent) => void): Promise<TrainResult> {
  const {run, model, checkpoint} = session;
  await openFolder(run, checkpoint);
  const stored = checkpoint && (await openMoments(checkpoint.path));
  const state = await createTrainState(model, {
    accumulates: run.train.batch.accumulate > 1,
    moments: stored?.moments ?? (() => Promise.resolve(null)),
  });
  await stored?.close();
  try {
    return await trainLoop(session, state, onEvent);
  } finally {
    disposeTrainState(state);
  }
}

/** The result of a run that is complete already; null if there is something to do. */
async function checkFolder({out, mode, config}: TrainRun): Promise<TrainResult | null> {
  if (mode === 'overwrite' || !(await exists(out))) return null;
  if (mode === 'new') {
    throw new EnvironmentError(`${out} already exists; downcycle never overwrites.`, {
      hint: 'Say --resume to go on with it, --overwrite to start again, or choose another name.',
    });
  }
  if (!(await exists(logPath(out)))) return null;
  const records = await readRunLog(logPath(out));
  const first = records.find((record) => record.kind === 'run');
  if (first && first.configHash !== config.hash) {
    throw new UsageError(`${out} holds a run of another config.`, {
      hint: `Compare ${join(out, 'config.yaml')} with yours; say --overwrite to start again, or choose another name.`,
    });
  }
  return completed(out, records.at(-1));
}

function completed(out: string, last: RunLogRecord | undefined): TrainResult | null {
  if (last?.kind !== 'end' || last.reason !== 'completed') return null;
  return {out, step: last.step, tokens: last.tokens, reason: 'completed', signal: null};
}

async function findCheckpoint({out}: TrainRun): Promise<Checkpoint | null> {
  return (await exists(out)) ? latestCheckpoint(out) : null;
}

/** Makes the run folder ready: new, emptied, or with its log taken back to the checkpoint. */
async function openFolder({out, mode, config}: TrainRun, checkpoint: Checkpoint | null): Promise<void> {
  if (checkpoint) {
    await truncateAfterStep(logPath(out), checkpoint.trainer.step);
    return;
  }
  if (mode !== 'new') await rm(out, {recursive: true, force: true}); // asked for, or nothing in it to go on from
  await mkdir(out, {recursive: true});
  await writeFileAtomic(join(out, 'config.yaml'), config.yaml);
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}
