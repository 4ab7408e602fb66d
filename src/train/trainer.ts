import {setImmediate} from 'node:timers/promises';
import {evaluationBatches} from '../data/evaluation.js';
import {createLoader, type Loader} from '../data/loader.js';
import type {SourceShards} from '../data/shards.js';
import {openRunLog, type RunLog} from '../format/run-log.js';
import {RUN_LOG_SCHEMA} from '../format/run-record.js';
import type {ShardRows} from '../format/token-shard-rows.js';
import {countParameters, flopsPerToken} from '../model/architecture.js';
import {createLossMeter, type LossMeter} from '../model/loss-meter.js';
import {packageVersion} from '../util/version.js';
import {checkpointModel, checkpointName, pruneCheckpoints, saveCheckpoint, type TrainerState} from './checkpoint.js';
import {divergence} from './divergence.js';
import type {TrainEvent} from './event.js';
import {optimizerOf} from './optimizer/options.js';
import {ratesLogged, ratesOf} from './rates.js';
import {openFolder} from './run-folder.js';
import {learningRate} from './schedule.js';
import {logPath, type Session, type TrainResult} from './session.js';
import {countTrainable, type TrainState} from './state.js';
import {createStepRunner, type StepResult, type StepRunner} from './step-runner.js';
import {listenForStop} from './stop-signal.js';

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
  /** When the first step of this session was done: until then it compiled, which tells nothing of the speed. */
  steadyAt: number | null;
}

/** The parts the loop works with. */
interface Parts extends Session {
  readonly state: TrainState;
  readonly loader: Loader;
  readonly runner: StepRunner;
  readonly meter: LossMeter;
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
  const {run, engine, checkpoint} = session;
  const loader = openLoader(session);
  const runner = openRunner(session, state);
  const meter = createLossMeter(state, run.data.sequenceLength, engine.precision);
  try {
    await openFolder(run, checkpoint);
    const log = await openRunLog(logPath(run.out));
    const parts = {...session, state, onEvent, loader, runner, meter, log, progress: startOf(session)};
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
    meter.dispose();
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
    onEvent({kind: 'start', arm: run.arm, engine, step: progress.step, steps});
    await logStart(parts);
    if (progress.step === 0) await validate(parts);
    while (progress.step < steps && !stop.requested()) {
      await trainStep(parts);
      const isLast = progress.step === steps;
      if (isLast || progress.step % validation.every === 0) await validate(parts);
      if (!isLast && checkpoint.every > 0 && progress.step % checkpoint.every === 0) await save(parts);
      await setImmediate(); // awaited results arrive as microtasks: without a macrotask no signal handler would run
    }
    if (progress.step > progress.savedStep) await save(parts); // a signal may come at any moment of the round
    return await logEnd(parts, stop.requested());
  } finally {
    stop.dispose();
  }
}

function openLoader({run, sources, checkpoint}: Session): Loader {
  const shards = sources.map(({name, weight, train}) => ({name, weight, shard: train}));
  const stored = checkpoint && {state: checkpoint.trainer.loader};
  return createLoader({shards, sequences: run.train.batch.sequences, seed: run.seed, ...stored});
}

function openRunner({run, engine}: Session, state: TrainState): StepRunner {
  const {optimizer, balance, capacity, finetune} = run.train;
  return createStepRunner(state, {
    optimizer: optimizerOf(optimizer),
    dropout: finetune.kind === 'lora' ? finetune.dropout : 0,
    clip: optimizer.clip,
    balanceWeight: balance.kind === 'aux' ? balance.weight : 0,
    zWeight: balance.zLoss,
    precision: engine.precision,
    capacity,
    sequenceLength: run.data.sequenceLength,
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
    steadyAt: null,
  };
}

async function trainStep({run, model, loader, runner, log, progress, onEvent}: Parts): Promise<void> {
  const {batch, optimizer, schedule, steps} = run.train;
  const began = performance.now();
  const batches: ShardRows[] = [];
  for (let i = 0; i < batch.accumulate; i++) batches.push(await loader.next());
  const t = progress.step + 1;
  const lr = learningRate(schedule, optimizer.lr, t, steps);
  const result = await runner.run(batches, ratesOf(optimizer, lr, t), {seed: run.seed, step: t});
  requireFinite(result, t, lr, run.out);
  const tokens = batch.accumulate * batch.sequences * run.data.sequenceLength;
  progress.step = t;
  progress.steadyAt ??= performance.now();
  progress.tokens += tokens;
  progress.flops += tokens * flopsPerToken(model.architecture, run.data.sequenceLength);
  const tokensPerSecond = tokens / ((performance.now() - began) / 1000);
  await log.append({
    kind: 'step',
    step: t,
    tokens: progress.tokens,
    flops: progress.flops,
    loss: result.loss,
    auxLoss: result.balance,
    zLoss: result.z,
    gradNorm: result.gradNorm,
    lr: ratesLogged(optimizer, lr),
    ...(result.load.length > 0 && {load: result.load.map((layer) => [...layer])}),
    overflow: result.overflow,
    seconds: secondsOf(progress),
    tokensPerSecond,
    utilisation: null,
  });
  onEvent({kind: 'step', step: t, steps, loss: result.loss, tokensPerSecond, eta: etaOf(progress, steps)});
}

/** @throws ConfigError when training diverged; the step was not applied and the last checkpoint stands. */
function requireFinite({loss, gradNorm}: StepResult, step: number, lr: number, out: string): void {
  if (Number.isFinite(loss) && Number.isFinite(gradNorm)) return;
  throw divergence(out, step, `loss ${loss}, gradient norm ${gradNorm}, learning rate ${lr}`);
}

/** Mean loss over the held-out rows of all sources together. */
async function validate({run, sources, meter, log, progress, onEvent}: Parts): Promise<void> {
  if (sources.every(({valid}) => valid === null)) return;
  const {loss} = await meter.measure(heldOutBatches(sources, run.train.batch.sequences, run.train.validation.maxRows));
  const {step, tokens} = progress;
  await log.append({kind: 'eval', step, tokens, split: 'valid', loss, perplexity: Math.exp(loss)});
  onEvent({kind: 'eval', step, loss});
}

async function* heldOutBatches(
  sources: readonly SourceShards[],
  sequences: number,
  maxRows: number,
): AsyncGenerator<ShardRows> {
  for (const {valid} of sources) if (valid) yield* evaluationBatches(valid, sequences, maxRows);
}

async function save({run, model, state, loader, log, progress, onEvent}: Parts): Promise<void> {
  const {finetune} = run.train;
  const isLora = finetune.kind === 'lora';
  const withModel = !isLora || finetune.merge;
  const {step, tokens, flops} = progress;
  await log.sync();
  const trainer: TrainerState = {
    format: 1,
    configHash: run.config.hash,
    step,
    tokens,
    flops,
    seconds: secondsOf(progress),
    loader: loader.state(),
  };
  const adapter = isLora ? ({format: 1, base: run.model, rank: finetune.rank, alpha: finetune.alpha} as const) : null;
  const content = {model, state, trainer, adapter, withModel, filesFrom: progress.filesFrom};
  const path = await saveCheckpoint(run.out, content);
  progress.savedStep = step;
  if (withModel) progress.filesFrom = checkpointModel(path);
  await log.append({kind: 'checkpoint', step, path: checkpointName(step)});
  await pruneCheckpoints(run.out, run.train.checkpoint.keep);
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
    inputs: parts.inputs,
    startedAt: now,
  });
}

async function logEnd({run, log, progress}: Parts, signal: NodeJS.Signals | null): Promise<TrainResult> {
  const {step, tokens} = progress;
  const reason = step >= run.train.steps ? 'completed' : 'interrupted';
  await log.append({kind: 'end', step, tokens, seconds: secondsOf(progress), reason});
  return {out: run.out, step, tokens, reason, signal};
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
