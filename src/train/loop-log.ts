// What a run writes to its log.
import {RUN_LOG_SCHEMA} from '../format/run-record.js';
import {countParameters} from '../model/architecture.js';
import {packageVersion} from '../util/version.js';
import type {Loop} from './loop.js';
import {etaOf, secondsOf} from './progress.js';
import {ratesLogged} from './rates.js';
import type {TrainResult} from './session.js';
import type {StepResult} from './step-runner.js';
import {countTrainable, trainableParts} from './trainable.js';

/** The head of a log, or that a run goes on. */
export async function logStart(loop: Loop): Promise<void> {
  const {run, model, engine, log, progress, checkpoint} = loop;
  const versions = {downcycle: packageVersion(), node: process.versions.node, [engine.engine]: engine.version};
  const now = new Date().toISOString();
  if (checkpoint) {
    const {step, tokens} = progress;
    const {changes, inputs} = loop;
    const changed = changes.length > 0 && {configHash: run.config.hash, inputs, changed: [...changes]};
    return log.append({kind: 'resume', step, tokens, versions, device: engine.device, ...changed, resumedAt: now});
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
    parameters: {...countParameters(model.architecture), trainable: countTrainable(loop.state)},
    parts: trainableParts(loop.state),
    ...(loop.state.experts && {experts: loop.state.experts.map((layer) => [...layer])}),
    inputs: loop.inputs,
    startedAt: now,
  });
}

/** A step that was done, for the log. */
export interface DoneStep {
  readonly result: StepResult;
  readonly lr: number;
  readonly skipped: boolean;
  /** Rows that could not be read, for which others stood in. */
  readonly damaged: number;
  readonly tokensPerSecond: number;
}

/** Logs and tells a step. */
export async function logStep(loop: Loop, {result, lr, skipped, damaged, tokensPerSecond}: DoneStep): Promise<void> {
  const {run, log, progress, onEvent} = loop;
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

/** Logs the end of a session that nothing broke. */
export async function logEnd(
  loop: Loop,
  reason: TrainResult['reason'],
  signal: NodeJS.Signals | null,
): Promise<TrainResult> {
  const {run, log, progress, onEvent} = loop;
  const {step, tokens, best} = progress;
  if (reason === 'early' && best) {
    onEvent({
      kind: 'note',
      text: `ended early: held-out loss was least at step ${best.step} (${best.loss.toFixed(3)})`,
    });
  }
  await log.append({kind: 'end', step, tokens, seconds: secondsOf(progress), reason});
  return {out: run.out, step, tokens, reason, signal};
}

/** Best effort: what failed may be the disk itself, and its error is the one to be told. */
export async function logFailure({log, progress}: Loop): Promise<void> {
  const {step, tokens} = progress;
  const seconds = secondsOf(progress);
  await log.append({kind: 'end', step, tokens, seconds, reason: 'failed'}).catch(() => undefined);
}
