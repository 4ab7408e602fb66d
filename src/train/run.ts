import type {PrepareProgress} from '../data/prepare.js';
import {closeShards, ensureShards, type SourceShards} from '../data/shards.js';
import {startEngine} from '../engine/start.js';
import {loadModel, type Model} from '../model/model.js';
import {readArchitecture} from '../model/read-architecture.js';
import {loadTokenizer, type Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError} from '../util/errors.js';
import {withLock} from '../util/lock.js';
import {refuseUnevenPool} from './balance.js';
import {accumulates} from './batch-size.js';
import {checkpointModel, openStored} from './checkpoint.js';
import type {TrainEvent} from './event.js';
import {inputsOf, refuseOtherInputs} from './inputs.js';
import {optimizerOf} from './optimizer/options.js';
import {checkFolder, findCheckpoint} from './run-folder.js';
import {withSelectionBias} from './selection-bias.js';
import type {Session, TrainResult, TrainRun} from './session.js';
import {createTrainState, disposeTrainState, type TrainState} from './state.js';
import {openTeacher} from './teacher.js';
import {trainLoop} from './trainer.js';
import {unreachedRouters} from './unreached-routers.js';
import {limitedTo, refuseIdsBeyond} from './vocabulary.js';

/**
 * Trains as a run says, from its start or from its last checkpoint; a completed run is left as it is.
 *
 * @throws EnvironmentError if the run folder exists and neither resume nor overwrite was said, is none, or another process
 * trains in it; UsageError if a run to be resumed, or one that is complete, has another config, model or text; DataError, ModelError for bad inputs; ConfigError if training diverges.
 * Nothing is written to the run folder before all inputs are open.
 */
export async function train(
  run: TrainRun,
  onEvent: (event: TrainEvent) => void = () => undefined,
): Promise<TrainResult> {
  const onStale = (text: string): void => onEvent({kind: 'note', text});
  return withLock(run.out, onStale, () => trainAlone(run, onEvent));
}

async function trainAlone(run: TrainRun, onEvent: (event: TrainEvent) => void): Promise<TrainResult> {
  const done = await checkFolder(run);
  if (done) {
    await refuseFinishedOfOther(run, onEvent);
    return done;
  }
  const architecture = await readArchitecture(run.model).catch(() => null); // loading it says what is wrong with it
  if (architecture) refuseUnevenPool(architecture, run.train.balance);
  const engine = await startEngine(run.engine);
  for (const text of engine.notes) onEvent({kind: 'note', text});
  const checkpoint = await findCheckpoint(run);
  const hasAdapter = run.train.finetune.kind === 'lora';
  const loaded = await loadModel(checkpoint && !hasAdapter ? checkpointModel(checkpoint.path) : run.model);
  const model = run.train.balance.kind === 'bias' ? withSelectionBias(loaded) : loaded;
  for (const text of [...model.warnings, unreachedRouters(model.architecture)]) {
    if (text !== null) onEvent({kind: 'note', text});
  }
  try {
    refuseLongRows(model, run.data.sequenceLength);
    return await withText(run, model, onEvent, async (sources, tokenizer) => {
      await refuseIdsBeyond(model, tokenizer, sources);
      const inputs = await inputsOf(run.model, sources);
      if (checkpoint) await refuseOtherInputs(run, inputs);
      const teacher = await openTeacher(run.train.distill, model, tokenizer);
      try {
        return await trainSession({run, model, teacher, sources, engine, checkpoint, inputs}, onEvent);
      } finally {
        teacher?.dispose();
      }
    });
  } finally {
    model.dispose();
  }
}

/** A finished run stays as it is only if it would be the same again; of a model that is gone nobody can tell. */
async function refuseFinishedOfOther(run: TrainRun, onEvent: (event: TrainEvent) => void): Promise<void> {
  const architecture = await readArchitecture(run.model).catch(() => null);
  if (!architecture) return;
  await withText(run, {path: run.model, architecture}, onEvent, async (sources) =>
    refuseOtherInputs(run, await inputsOf(run.model, sources)),
  );
}

/** Runs `body` with the packed text of a run open. */
async function withText<T>(
  {data, shards}: TrainRun,
  model: Pick<Model, 'path' | 'architecture'>,
  onEvent: (event: TrainEvent) => void,
  body: (sources: readonly SourceShards[], tokenizer: Tokenizer) => Promise<T>,
): Promise<T> {
  const tokenizer = await loadTokenizer(model.path);
  const onPack = (state: PrepareProgress): void => onEvent({kind: 'pack', ...state});
  const sources = await ensureShards(data, limitedTo(model, tokenizer), shards, onPack);
  try {
    return await body(sources, tokenizer);
  } finally {
    await closeShards(sources);
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
  const {finetune, optimizer, batch, balance, ema} = run.train;
  const kept = checkpoint && (await openStored(checkpoint.path, finetune.kind === 'lora'));
  try {
    return await createTrainState(model, {
      finetune,
      optimizer: optimizerOf(optimizer),
      accumulates: accumulates(batch),
      movesBiases: balance.kind === 'bias',
      averages: ema !== undefined,
      seed: run.seed,
      stored: kept?.stored ?? (() => Promise.resolve(null)),
    });
  } finally {
    await kept?.close();
  }
}
