import {setImmediate} from 'node:timers/promises';
import {type Batch, createLoader, type Loader, type LoaderState} from '../data/loader.js';
import {openRunLog, type RunLog} from '../format/run-log.js';
import {RUN_LOG_SCHEMA} from '../format/run-record.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {countParameters, flopsPerToken} from '../model/architecture.js';
import {hasLabel} from '../model/batch.js';
import {packageVersion} from '../util/version.js';
import {passesOf} from './batch-size.js';
import {type BestLoss, isOutOfPatience, recordBest, withValidation} from './best.js';
import {checkpointModel, checkpointName, pruneCheckpoints, saveCheckpoint, type TrainerState} from './checkpoint.js';
import {whereNotFinite} from './diagnosis.js';
import {divergence, spike} from './divergence.js';
import type {TrainEvent} from './event.js';
import {ratesLogged, ratesOf} from './rates.js';
import {openFolder} from './run-folder.js';
import {learningRate} from './schedule.js';
import {logPath, type Session, type TrainResult} from './session.js';
import {isApplied, lossLimit, maySkip, type RecentLosses, withLoss} from './spike.js';
import type {TrainState} from './state.js';
import {stepOptionsOf} from './step-options.js';
import {createStepRunner, type RunnerOptions, type StepResult, type StepRunner} from './step-runner.js';
import {listenForStop} from './stop-signal.js';
import {countTrainable, trainableParts} from './trainable.js';
import {openValidation, type Validation} from './validation.js';

/** What the loop carries from step to step. */
interface Progress {
  step: number;
  tokens: number;
  flops: number;
  /** Step of the newest checkpoint; 0 before there is one. */
  savedStep: number;
  /** Where the next checkpoint copies its tokenizer and origin from: the newest one, since older ones are pruned. */
  filesFrom: string;
  /** Wall-clock of earlier sessions. */
  readonly secondsBefore: number;
  readonly startStep: number;
  readonly startedAt: number;
  /** Whether that one is light, and of this step: a run does not end on such. */
  isLight: boolean;
  recent: RecentLosses;
  best: BestLoss | null;
  /** When the first step of this session was done: until then it compiled, which tells nothing of the speed. */
  steadyAt: number | null;
}

/** The parts the loop works with. */
interface Parts extends Session {
  readonly state: TrainState;
  readonly loader: Loader;
  readonly runner: StepRunner;
  readonly stepOptions: RunnerOptions;
  readonly validation: Validation;
  readonly log: RunLog;
  readonly progress: Progress;
  readonly onEvent: (event: TrainEvent) => void;
}

/** Opens what can refuse, then the run folder and its log, and trains. */
export async function trainLoop(
  session: Session,
  state: TrainState,
  onEvent: (event: TrainEvent) => void,
): Promise<TrainResult> {
  const {run, checkpoint} = session;
  const loader = openLoader(session);
  const validation = openValidation(session, state);
  const stepOptions = stepOptionsOf(session);
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
async function loop(parts: Parts): Promise<TrainResult> {
  const {run, engine, progress, onEvent} = parts;
  const {steps, validation, checkpoint} = run.train;
  const stop = listenForStop((signal) =>
    onEvent({kind: 'note', text: `${signal}: saving after the step under way; a second one ends at once`}),
  );
  try {
    onEvent({kind: 'start', arm: run.arm, engine, step: progress.step, steps, parts: trainableParts(parts.state)});
    await logStart(parts);
    if (progress.step === 0) await validate(parts);
    while (!isDone(parts) && (!stop.requested() || progress.isLight)) {
      await trainStep(parts);
      const isBest = (isLastStep(parts) || progress.step % validation.every === 0) && (await validate(parts));
      const isDue = checkpoint.every > 0 && progress.step % checkpoint.every === 0;
      if ((isDue || (isBest && checkpoint.best)) && !isDone(parts) && !stop.requested()) {
        await save(parts, {light: !checkpoint.optimizer});
      }
      await setImmediate(); // awaited results arrive as microtasks: without a macrotask no signal handler would run
    }
    if (progress.step > progress.savedStep) await save(parts); // a signal may come at any moment of the round
    return await logEnd(parts, stop.requested());
  } finally {
    stop.dispose();
  }
}

function isLastStep({run, progress}: Parts): boolean {
  return progress.step >= run.train.steps;
}

function isDone(parts: Parts): boolean {
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

function startOf({model, checkpoint}: Session): Progress {
  const {step, tokens, flops, seconds} = checkpoint?.trainer ?? {step: 0, tokens: 0, flops: 0, seconds: 0};
  return {
    step,
    tokens,
    flops,
    savedStep: step,
    filesFrom: model.path,
    secondsBefore: seconds,
    startStep: step,
    startedAt: performance.now(),
    isLight: false,
    recent: checkpoint?.trainer.recent ?? [],
    best: checkpoint?.trainer.best ?? null,
    steadyAt: null,
  };
}

async function trainStep(parts: Parts): Promise<void> {
  const {run, model, loader, runner, progress, onEvent} = parts;
  const {batch, optimizer, schedule, steps, spike: policy} = run.train;
  const began = performance.now();
  const dataBefore = loader.state();
  const t = progress.step + 1;
  const batches: Batch[] = [];
  for (let i = passesOf(batch, t); i > 0; i--) batches.push(await loader.next());
  if (!batches.some(hasLabel)) {
    onEvent({
      kind: 'note',
      text: `step ${t}: no token of its rows is to be learnt (mask), so its loss is 0 and only what was set in motion before goes on`,
    });
  }
  const lr = learningRate(schedule, optimizer.lr, t, steps);
  const limit = lossLimit(policy, progress.recent);
  const rates = {...ratesOf(optimizer, lr, t), lossLimit: limit};
  const result = await runner.run(batches, rates, {seed: run.seed, step: t});
  const skipped = !isApplied(result, limit);
  const recent = withLoss(policy, progress.recent, result.loss);
  if (skipped && !maySkip(policy, recent)) await refuseStep(parts, {result, lr, limit, batches, dataBefore});
  const tokens = batches.length * batch.sequences * run.data.sequenceLength;
  progress.step = t;
  progress.isLight = false;
  progress.recent = recent;
  progress.steadyAt ??= performance.now();
  progress.tokens += tokens;
  progress.flops += tokens * flopsPerToken(model.architecture, run.data.sequenceLength);
  await logStep(parts, {
    result,
    lr,
    skipped,
    damaged: damagedRows(parts, batches),
    tokensPerSecond: tokens / ((performance.now() - began) / 1000),
  });
}

/** A step that was done, for the log. */
interface DoneStep {
  readonly result: StepResult;
  readonly lr: number;
  readonly skipped: boolean;
  /** Rows that others stood in for. */
  readonly damaged: number;
  readonly tokensPerSecond: number;
}

/** Tells of rows that could not be read, and counts them. */
function damagedRows({progress, onEvent}: Parts, batches: readonly Batch[]): number {
  const faults = batches.flatMap(({damaged}) => damaged);
  for (const fault of faults) onEvent({kind: 'note', text: `step ${progress.step} skipped a row: ${fault}`});
  return faults.length;
}

async function logStep(parts: Parts, {result, lr, skipped, damaged, tokensPerSecond}: DoneStep): Promise<void> {
  const {run, log, progress, onEvent} = parts;
  const {step, tokens, flops} = progress;
  const {loss, balance, z, divergence, gradNorm, load, overflow} = result;
  await log.append({
    kind: 'step',
    step,
    tokens,
    flops,
    loss,
    auxLoss: balance,
    zLoss: z,
    ...(run.train.distill && {distillLoss: divergence}),
    gradNorm,
    lr: ratesLogged(run.train.optimizer, lr),
    ...(load.length > 0 && {load: load.map((layer) => [...layer])}),
    overflow,
    ...(skipped && {skipped}),
    ...(damaged > 0 && {damaged}),
    seconds: secondsOf(progress),
    tokensPerSecond,
    utilisation: null,
  });
  const {steps} = run.train;
  if (skipped) onEvent({kind: 'note', text: `step ${step} was skipped: loss ${loss}, gradient norm ${gradNorm}`});
  onEvent({kind: 'step', step, steps, loss, tokensPerSecond, eta: etaOf(progress, steps)});
}

/** A step that was not applied. */
interface RefusedStep {
  readonly result: StepResult;
  readonly lr: number;
  readonly limit: number;
  readonly batches: readonly ShardRows[];
  /** Where the loader stood before the step. */
  readonly dataBefore: LoaderState;
}

/** @throws ConfigError that says why the run stops; the state before the step is saved first, no older one removed. */
async function refuseStep(parts: Parts, {result, lr, limit, batches, dataBefore}: RefusedStep): Promise<never> {
  const {run, progress, state, stepOptions} = parts;
  const {loss, gradNorm} = result;
  const step = progress.step + 1;
  if (progress.step > progress.savedStep) {
    // Best effort: weights may be infinite already, and the error of the step is the one to be told.
    await save(parts, {data: dataBefore, prunes: false}).catch(() => undefined);
  }
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
    throw spike(run.out, step, `${loss}, the limit by the steps before it is ${limit}`);
  }
  const where = await whereNotFinite(state, stepOptions, batches, {seed: run.seed, step});
  const first = where === null ? '' : `, first not finite: ${where}`;
  throw divergence(run.out, step, `loss ${loss}, gradient norm ${gradNorm}, learning rate ${lr}${first}`);
}

/** Logs the validation losses. Returns whether that of the weights is the lowest there was. */
async function validate({validation, log, progress, onEvent}: Parts): Promise<boolean> {
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

/** What is saved otherwise than at the end of a step. */
interface SaveOptions {
  /** Where the loader is to go on; default where it stands. */
  readonly data?: LoaderState;
  /** Without what the optimizer keeps. */
  readonly light?: boolean;
  /** Whether older checkpoints may go. */
  readonly prunes?: boolean;
}

async function save(parts: Parts, {data, light = false, prunes = true}: SaveOptions = {}): Promise<void> {
  const {run, model, state, loader, log, progress, onEvent} = parts;
  const {finetune} = run.train;
  const isLora = finetune.kind === 'lora';
  const withModel = !isLora || finetune.merge;
  const {step, tokens, flops, recent, best} = progress;
  await log.sync();
  const trainer: TrainerState = {
    format: 1,
    configHash: run.config.hash,
    step,
    tokens,
    flops,
    seconds: secondsOf(progress),
    ...(recent.length > 0 && {recent}),
    ...(best && {best}),
    ...(light && {light}),
    loader: data ?? loader.state(),
  };
  const adapter = isLora ? ({format: 1, base: run.model, rank: finetune.rank, alpha: finetune.alpha} as const) : null;
  const content = {model, state, trainer, adapter, withModel, filesFrom: progress.filesFrom};
  const path = await saveCheckpoint(run.out, content);
  progress.savedStep = step;
  progress.isLight = light;
  if (withModel) progress.filesFrom = checkpointModel(path);
  await log.append({kind: 'checkpoint', step, path: checkpointName(step)});
  const {keep, best: keepsBest} = run.train.checkpoint;
  if (keepsBest && best?.step === step) await recordBest(run.out, best);
  if (prunes) await pruneCheckpoints(run.out, keep, keepsBest && best ? best.step : null);
  onEvent({kind: 'checkpoint', step, path});
}

async function logStart(parts: Parts): Promise<void> {
  const {run, model, engine, log, progress, checkpoint} = parts;
  const versions = {downcycle: packageVersion(), node: process.versions.node, [engine.engine]: engine.version};
  const now = new Date().toISOString();
  if (checkpoint) {
    const {step, tokens} = progress;
    return log.append({kind: 'resume', step, tokens, versions, device: engine.device, resumedAt: now});
  }
  return log.append({
    kind: 'run',
    schema: RUN_LOG_SCHEMA,
    name: run.name,
    arm: run.arm,
    configHash: run.config.hash,
    seed: run.seed,
    versions,
    device: engine.device,
    parameters: {...countParameters(model.architecture), trainable: countTrainable(parts.state)},
    parts: trainableParts(parts.state),
    inputs: parts.inputs,
    startedAt: now,
  });
}

async function logEnd(parts: Parts, signal: NodeJS.Signals | null): Promise<TrainResult> {
  const {run, log, progress, onEvent} = parts;
  const {step, tokens, best} = progress;
  const reason = endOf(parts);
  if (reason === 'early' && best) {
    const text = `ended early: the last ${best.since} validations found no lower loss than ${best.loss} at step ${best.step}`;
    onEvent({kind: 'note', text});
  }
  await log.append({kind: 'end', step, tokens, seconds: secondsOf(progress), reason});
  return {out: run.out, step, tokens, reason, signal};
}

function endOf(parts: Parts): TrainResult['reason'] {
  if (isLastStep(parts)) return 'completed';
  return isDone(parts) ? 'early' : 'interrupted';
}

/** Best effort: what failed may be the disk itself, and its error is the one to be told. */
async function logFailure({log, progress}: Parts): Promise<void> {
  const {step, tokens} = progress;
  const seconds = secondsOf(progress);
  await log.append({kind: 'end', step, tokens, seconds, reason: 'failed'}).catch(() => undefined);
}

function secondsOf({secondsBefore, startedAt}: Progress): number {
  return secondsBefore + (performance.now() - startedAt) / 1000;
}

function etaOf({step, startStep, steadyAt}: Progress, steps: number): number | null {
  const done = step - startStep - 1;
  return done < 1 || steadyAt === null ? null : ((performance.now() - steadyAt) / 1000 / done) * (steps - step);
}
