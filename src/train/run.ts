import type {PrepareProgress} from '../data/prepare.js';
import {closeShards, ensureShards, type SourceShards} from '../data/shards.js';
import {startEngine} from '../engine/start.js';
import {loadModel, type Model} from '../model/model.js';
import {readArchitecture} from '../model/read-architecture.js';
import {loadTokenizer, type Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, ModelError} from '../util/errors.js';
import {withLock} from '../util/lock.js';
import {accumulates} from './batch-size.js';
import {checkpointModel, openStored, withoutIt} from './checkpoint.js';
import {type ChosenExperts, chooseExperts} from './esft.js';
import type {TrainEvent} from './event.js';
import type {EsftOptions} from './finetune.js';
import {refuseFixed} from './fixed-keys.js';
import {ignoredRates, ignoredWithoutExperts} from './ignored.js';
import {inputsOf, otherInputs, type RunInputs, refuseOtherInputs} from './inputs.js';
import {optimizerOf} from './optimizer/options.js';
import {routingNote} from './routing/check.js';
import {beginsAgain, changesOf, checkFolder, findCheckpoint} from './run-folder.js';
import {withSelectionBias} from './selection-bias.js';
import type {Checkpoint, Session, TrainResult, TrainRun} from './session.js';
import {createTrainState, disposeTrainState, type TrainState} from './state.js';
import {closeTeacher, openTeacher} from './teacher.js';
import {requireTrainable} from './trainable-run.js';
import {trainLoop} from './trainer.js';
import {refuseUnlearnt} from './unlearnt.js';
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
    onEvent({kind: 'note', text: `${run.out} is complete: it has made its ${done.step} steps`});
    return done;
  }
  const checkpoint = await findCheckpoint(run);
  if (checkpoint) await refuseFixed(checkpoint, run);
  const again = await beginsAgain(run, checkpoint);
  if (again !== null) onEvent({kind: 'note', text: again});
  const hasAdapter = run.train.finetune.kind === 'lora';
  const path = checkpoint && !hasAdapter ? checkpointModel(checkpoint.path) : run.model;
  const found = await readArchitecture(path).catch(() => null); // loading it says what is wrong with it
  if (found) await requireTrainable(run, {path, architecture: found});
  const engine = await startEngine(run.engine);
  for (const text of engine.notes) onEvent({kind: 'note', text});
  const loaded = await orWithout(hasAdapter ? null : checkpoint, () => loadModel(path));
  const model = run.train.balance.kind === 'bias' ? withSelectionBias(loaded) : loaded;
  const {architecture, warnings} = model;
  const notes = [
    run.train.routing.kind === 'all-experts' ? null : unreachedRouters(architecture), // there scores weigh
    routingNote(run.train.routing, architecture),
    ignoredWithoutExperts(run.train, architecture),
    ignoredRates(run.train.optimizer, architecture),
  ];
  for (const text of [...warnings, ...notes]) {
    if (text !== null) onEvent({kind: 'note', text});
  }
  try {
    return await withText(run, model, onEvent, async (sources, tokenizer) => {
      await refuseIdsBeyond(model, tokenizer, sources, run.data.damaged);
      await refuseUnlearnt(sources);
      const inputs = await inputsOf(run, sources);
      const changes = checkpoint ? await changesSince(run, checkpoint, inputs) : [];
      const teacher = await openTeacher({run, model, sources, engine});
      try {
        return await trainSession({run, model, teacher, sources, engine, checkpoint, inputs, changes}, onEvent);
      } finally {
        await closeTeacher(teacher);
      }
    });
  } finally {
    model.dispose();
  }
}

/** Reads from a checkpoint. @throws ModelError as `read` does, with what to do about a damaged one: nobody fetches it again. */
async function orWithout<T>(checkpoint: Checkpoint | null, read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!checkpoint || !(error instanceof ModelError)) throw error;
    throw new ModelError(error.message, {hint: withoutIt(checkpoint.path), cause: error});
  }
}

/** What is another than when the run began, in words; refused unless that is allowed. */
async function changesSince(run: TrainRun, checkpoint: Checkpoint, inputs: RunInputs): Promise<string[]> {
  if (!run.allowsChange) await refuseOtherInputs(run, inputs);
  return [...(await changesOf(run, checkpoint)), ...(await otherInputs(run.out, inputs))];
}

/** A finished run stays as it is only if it would be the same again; of a model or text that is gone nobody can tell. */
async function refuseFinishedOfOther(run: TrainRun, onEvent: (event: TrainEvent) => void): Promise<void> {
  const architecture = await readArchitecture(run.model).catch(() => null);
  if (!architecture) return;
  await withText(run, {path: run.model, architecture}, onEvent, async (sources) =>
    refuseOtherInputs(run, await inputsOf(run, sources)),
  ).catch((error: unknown) => {
    if (!(error instanceof DataError)) throw error; // without its text nobody can tell either
    onEvent({kind: 'note', text: `the text of the finished run was not looked at: ${error.message}`});
  });
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

async function trainSession(session: Session, onEvent: (event: TrainEvent) => void): Promise<TrainResult> {
  const state = await openState(session, onEvent);
  try {
    return await trainLoop(session, state, onEvent);
  } finally {
    disposeTrainState(state);
  }
}

async function openState(session: Session, onEvent: (event: TrainEvent) => void): Promise<TrainState> {
  const {run, model, checkpoint} = session;
  const {finetune, optimizer, batch, balance, ema} = run.train;
  const experts = finetune.kind === 'esft' ? await trainedExperts(session, finetune, onEvent) : null;
  const options = {
    finetune,
    optimizer: optimizerOf(optimizer),
    accumulates: accumulates(batch),
    movesBiases: balance.kind === 'bias',
    averages: ema !== undefined,
    experts,
    seed: run.seed,
  };
  return orWithout(checkpoint, async () => {
    const kept = checkpoint && (await openStored(checkpoint.path, finetune.kind === 'lora'));
    try {
      return await createTrainState(model, {...options, stored: kept?.stored ?? (() => Promise.resolve(null))});
    } finally {
      await kept?.close();
    }
  });
}

/** The experts that ESFT trains: those that the run began with, or those that its text uses most. */
async function trainedExperts(
  session: Session,
  finetune: EsftOptions,
  onEvent: (event: TrainEvent) => void,
): Promise<ChosenExperts> {
  const kept = session.checkpoint?.trainer.experts;
  if (kept) return kept;
  const chosen = await chooseExperts(session, finetune);
  const counts = chosen.map(({length}) => length);
  const range = `${Math.min(...counts)} to ${Math.max(...counts)}`;
  onEvent({kind: 'note', text: `of each layer ${range} experts train, by use on ${finetune.rows} rows`});
  return chosen;
}
