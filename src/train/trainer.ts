import {setImmediate} from 'node:timers/promises';
import {type Batch, createLoader, type Loader, type LoaderState} from '../data/loader.js';
import {openRunLog} from '../format/run-log.js';
import {countLabels} from '../model/batch.js';
import {passesOf} from './batch-size.js';
import {isOutOfPatience, recordBest, withValidation} from './best.js';
import {whereNotFinite} from './diagnosis.js';
import {divergence, spike} from './divergence.js';
import type {TrainEvent} from './event.js';
import {trainingFlops} from './expert-rows.js';
import type {Loop} from './loop.js';
import {logEnd, logFailure, logStart, logStep} from './loop-log.js';
import {startOf} from './progress.js';
import {ratesOf} from './rates.js';
import {epochTexts, refuseRows, repeatTexts} from './rows.js';
import {openFolder} from './run-folder.js';
import {saveAsItStands, saveStep} from './save-step.js';
import {learningRate} from './schedule.js';
import {logPath, type Session, type TrainResult} from './session.js';
import {isApplied, lossLimit, maySkip, withLoss} from './spike.js';
import type {TrainState} from './state.js';
import {stepOptionsOf} from './step-options.js';
import {createStepRunner, type StepResult, type TrainRows} from './step-runner.js';
import {listenForStop} from './stop-signal.js';
import {trainableParts} from './trainable.js';
import {openValidation} from './validation.js';

/** Opens what can refuse, then the run folder and its log, and trains. */
export async function trainLoop(
  session: Session,
  state: TrainState,
  onEvent: (event: TrainEvent) => void,
): Promise<TrainResult> {
  const {run, checkpoint} = session;
  const loader = openLoader(session);
  const validation = openValidation(session, state);
  const {teacher} = session;
  const stepOptions = stepOptionsOf({...session, teacher: teacher?.kind === 'live' ? teacher.model : null});
  const runner = createStepRunner(state, stepOptions);
  try {
    await openFolder(run, checkpoint);
    if (checkpoint && run.train.checkpoint.best) await recordBest(run.out, checkpoint.trainer.best ?? null);
    const log = await openRunLog(logPath(run.out));
    const parts = {
      ...session,
      state,
      onEvent,
      loader,
      runner,
      stepOptions,
      validation,
      log,
      progress: startOf(session),
    };
    try {
      return await loop(parts);
    } catch (error) {
      await logFailure(parts);
      throw error;
    } finally {
      await log.close();
    }
  } finally {
    runner.dispose();
    validation.dispose();
  }
}

/** The training loop, in the order things happen: validate, stop, step, log, save. */
async function loop(parts: Loop): Promise<TrainResult> {
  const {run, engine, progress, onEvent} = parts;
  const {steps, validation, checkpoint} = run.train;
  const stop = listenForStop((signal) =>
    onEvent({kind: 'note', text: `${signal}: saving after the step under way; a second one ends at once`}),
  );
  try {
    onEvent({kind: 'start', arm: run.arm, engine, step: progress.step, steps, parts: trainableParts(parts.state)});
    await logStart(parts);
    if (progress.step === 0) for (const text of repeatTexts(parts)) onEvent({kind: 'note', text});
    if (progress.step === 0) await validate(parts);
    while (!isDone(parts) && (!stop.requested() || progress.isLight)) {
      await trainStep(parts);
      const isBest = (isLastStep(parts) || progress.step % validation.every === 0) && (await validate(parts));
      const isDue = checkpoint.every > 0 && progress.step % checkpoint.every === 0;
      if ((isDue || (isBest && checkpoint.best)) && !isDone(parts) && !stop.requested()) {
        await saveStep(parts, {light: !checkpoint.optimizer});
      }
      await setImmediate(); // awaited results arrive as microtasks: without a macrotask no signal handler would run
    }
    if (progress.step > progress.savedStep) await saveStep(parts); // a signal may come at any moment of the round
    return await logEnd(parts, endOf(parts), stop.requested());
  } finally {
    stop.dispose();
  }
}

function isLastStep({run, progress}: Loop): boolean {
  return progress.step >= run.train.steps;
}

function isDone(parts: Loop): boolean {
  return isLastStep(parts) || isOutOfPatience(parts.progress.best, parts.run.train.patience);
}

function openLoader({run, sources, checkpoint}: Session): Loader {
  const shards = sources.map(({name, weight, train}) => ({name, weight, shard: train}));
  const stored = checkpoint && {state: checkpoint.trainer.loader};
  return createLoader({
    shards,
    sequences: run.train.batch.sequences,
    seed: run.seed,
    damaged: run.data.damaged,
    ...stored,
  });
}

async function trainStep(parts: Loop): Promise<void> {
  const {run, model, loader, runner, progress, onEvent} = parts;
  const {batch, optimizer, schedule, steps, spike: policy} = run.train;
  const began = performance.now();
  const dataBefore = loader.state();
  const t = progress.step + 1;
  const read = readRows(parts, passesOf(batch, t));
  const {batches, faults} = await read.catch((error: unknown) => refuseRows(parts, error, dataBefore));
  tellOfRows(parts, batches, faults);
  for (const text of epochTexts(dataBefore, loader.state())) onEvent({kind: 'note', text: `step ${t}: ${text}`});
  const lr = learningRate(schedule, optimizer.lr, t, steps);
  const limit = lossLimit(policy, progress.recent);
  const rates = {...ratesOf(optimizer, lr, progress.applied + 1), lossLimit: limit};
  const result = await runner.run(batches, rates, {seed: run.seed, step: t});
  const skipped = !isApplied(result, limit);
  const recent = withLoss(policy, progress.recent, result);
  if (skipped && !maySkip(policy, recent)) await refuseStep(parts, {result, lr, limit, batches, dataBefore});
  const tokens = batches.length * batch.sequences * run.data.sequenceLength;
  progress.step = t;
  if (!skipped) progress.applied++;
  progress.isLight = false;
  progress.recent = recent;
  progress.steadyAt ??= performance.now();
  progress.tokens += tokens;
  progress.flops += tokens * trainingFlops(model.architecture, run, 'sent');
  const tokensPerSecond = tokens / ((performance.now() - began) / 1000);
  await logStep(parts, {result, lr, skipped, damaged: faults.length, tokensPerSecond});
}

/** The rows of a step's passes, and what was wrong with those that others stand in for. */
async function readRows(parts: Loop, passes: number): Promise<{batches: TrainRows[]; faults: string[]}> {
  const [batches, faults]: [TrainRows[], string[]] = [[], []];
  for (let i = passes; i > 0; i--) {
    const rows = await parts.loader.next();
    faults.push(...rows.damaged);
    batches.push(await taught(parts, rows));
  }
  return {batches, faults};
}

/** Says which rows of the step to come could not be read, and whether nothing of the others is to be learnt. */
function tellOfRows({run, progress, onEvent}: Loop, batches: readonly TrainRows[], faults: readonly string[]): void {
  const step = progress.step + 1;
  for (const fault of faults) onEvent({kind: 'note', text: `step ${step} skipped a row: ${fault}`});
  if (batches.some((rows) => countLabels(rows, run.data.sequenceLength) > 0)) return;
  const text = `step ${step}: no token of its rows is to be learnt, so its loss is 0: only balance losses and what was set in motion before go on`;
  onEvent({kind: 'note', text});
}

/** A batch with what the teacher foresees of it, where that is kept. */
async function taught({teacher}: Loop, batch: Batch): Promise<TrainRows> {
  return teacher?.kind === 'top' ? {...batch, taught: await teacher.words.of(batch)} : batch;
}

/** A step that was not applied. */
interface RefusedStep {
  readonly result: StepResult;
  readonly lr: number;
  readonly limit: number;
  readonly batches: readonly TrainRows[];
  /** Where the loader stood before the step. */
  readonly dataBefore: LoaderState;
}

/** @throws ConfigError that says why the run stops; the state before the step is saved first, no older one removed. */
async function refuseStep(parts: Loop, {result, lr, limit, batches, dataBefore}: RefusedStep): Promise<never> {
  const {run, progress, state, stepOptions} = parts;
  const {loss, gradNorm} = result;
  const step = progress.step + 1;
  await saveAsItStands(parts, dataBefore); // unless weights are infinite already
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
    throw spike(run.out, step, `${loss}, the limit by the steps before it is ${limit}`);
  }
  const where = await whereNotFinite(state, stepOptions, batches, {seed: run.seed, step});
  const first = where === null ? '' : `, first not finite: ${where}`;
  throw divergence(run.out, step, `loss ${loss}, gradient norm ${gradNorm}, learning rate ${lr}${first}`);
}

/** Logs the validation losses. Returns whether that of the weights is the lowest there was. */
async function validate({validation, log, progress, onEvent}: Loop): Promise<boolean> {
  const {step, tokens} = progress;
  const losses = await validation.measure();
  for (const {split, loss} of losses) {
    await log.append({kind: 'eval', step, tokens, split, loss, perplexity: Math.exp(loss)});
  }
  const [first] = losses;
  if (!first) return false;
  onEvent({kind: 'eval', step, loss: first.loss});
  progress.best = withValidation(progress.best, step, first.loss);
  return progress.best?.step === step;
}

function endOf(parts: Loop): TrainResult['reason'] {
  if (isLastStep(parts)) return 'completed';
  return isDone(parts) ? 'early' : 'interrupted';
}
