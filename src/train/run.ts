import type {PrepareProgress} from '../data/prepare.js';
import {closeShards, ensureShards} from '../data/shards.js';
import {startEngine} from '../engine/start.js';
import {loadModel, type Model} from '../model/model.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {DataError} from '../util/errors.js';
import {checkpointModel, openMoments} from './checkpoint.js';
import type {TrainEvent} from './event.js';
import {checkFolder, findCheckpoint} from './run-folder.js';
import type {Session, TrainResult, TrainRun} from './session.js';
import {createTrainState, disposeTrainState} from './state.js';
import type {TrainState} from './step.js';
import {trainLoop} from './trainer.js';
import {unreachedRouters} from './unreached-routers.js';
import {limitedTo, refuseIdsBeyond} from './vocabulary.js';

/**
 * Trains as a run says, from its start or from its last checkpoint; a completed run is left as it is.
 *
 * @throws EnvironmentError if the run folder exists and neither resume nor overwrite was said, or is none; UsageError if
 * a run to be resumed has another config; DataError, ModelError for bad inputs; ConfigError if training diverges.
 * Nothing is written to the run folder before all inputs are open.
 */
export async function train(
  run: TrainRun,
  onEvent: (event: TrainEvent) => void = () => undefined,
): Promise<TrainResult> {
  const done = await checkFolder(run);
  if (done) return done;
  const engine = await startEngine(run.engine);
  for (const text of engine.notes) onEvent({kind: 'note', text});
  const checkpoint = await findCheckpoint(run);
  const model = await loadModel(checkpoint ? checkpointModel(checkpoint.path) : run.model);
  for (const text of [...model.warnings, unreachedRouters(model.architecture)]) {
    if (text !== null) onEvent({kind: 'note', text});
  }
  try {
    refuseLongRows(model, run.data.sequenceLength);
    const tokenizer = await loadTokenizer(model.path);
    const onPack = (state: PrepareProgress): void => onEvent({kind: 'pack', ...state});
    const sources = await ensureShards(run.data, limitedTo(model, tokenizer), run.shards, onPack);
    try {
      await refuseIdsBeyond(model, tokenizer, sources);
      return await trainSession({run, model, sources, engine, checkpoint}, onEvent);
    } finally {
      await closeShards(sources);
    }
  } finally {
    model.dispose();
  }
}

function refuseLongRows({architecture, path}: Model, sequenceLength: number): void {
  if (sequenceLength <= architecture.contextLength) return;
  throw new DataError(
    `Rows of ${sequenceLength} tokens are asked for, ${path} has ${architecture.contextLength} positions (max_position_embeddings).`,
    {hint: `Lower data.sequenceLength to ${architecture.contextLength} or less.`},
  );
}

async function trainSession(session: Session, onEvent: (event: TrainEvent) => void): Promise<TrainResult> {
  const state = await openState(session);
  try {
    return await trainLoop(session, state, onEvent);
  } finally {
    disposeTrainState(state);
  }
}

async function openState({run, model, checkpoint}: Session): Promise<TrainState> {
  const stored = checkpoint && (await openMoments(checkpoint.path));
  try {
    return await createTrainState(model, {
      accumulates: run.train.batch.accumulate > 1,
      moments: stored?.moments ?? (() => Promise.resolve(null)),
    });
  } finally {
    await stored?.close();
  }
}
