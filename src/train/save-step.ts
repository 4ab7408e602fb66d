import type {LoaderState} from '../data/loader.js';
import {recordBest} from './best.js';
import {
  checkpointModel,
  checkpointName,
  completeCheckpoint,
  pruneCheckpoints,
  saveCheckpoint,
  type TrainerState,
} from './checkpoint.js';
import type {Loop} from './loop.js';
import {secondsOf} from './progress.js';

/** What is saved otherwise than at the end of a step. */
interface SaveOptions {
  /** Where the loader is to go on; default where it stands. */
  readonly data?: LoaderState;
  /** Without what the optimizer keeps. */
  readonly light?: boolean;
  /** Whether older checkpoints may go. */
  readonly prunes?: boolean;
}

/** Saves a checkpoint of the step that was done last, logs it, and lets older ones go. */
export async function saveStep(loop: Loop, {data, light = false, prunes = true}: SaveOptions = {}): Promise<void> {
  const {run, model, state, loader, log, progress, onEvent} = loop;
  const {finetune} = run.train;
  const isLora = finetune.kind === 'lora';
  const withModel = !isLora || finetune.merge;
  const {step, applied, tokens, flops, recent, best} = progress;
  await log.sync();
  const trainer: TrainerState = {
    format: 1,
    configHash: run.config.hash,
    config: run.config.yaml,
    step,
    ...(applied !== step && {applied}),
    tokens,
    flops,
    seconds: secondsOf(progress),
    ...(recent.length > 0 && {recent}),
    ...(best && {best}),
    ...(state.experts && {experts: state.experts}),
    ...(light && {light}),
    loader: data ?? loader.state(),
  };
  const adapter = isLora ? adapterRecord(loop, finetune) : null;
  const content = {model, state, trainer, adapter, withModel, filesFrom: progress.filesFrom};
  const isThere = progress.isLight && step === progress.savedStep;
  const path = isThere ? await completeCheckpoint(run.out, state, trainer) : await saveCheckpoint(run.out, content);
  progress.savedStep = step;
  progress.isLight = light;
  if (withModel) progress.filesFrom = checkpointModel(path);
  await log.append({kind: 'checkpoint', step, path: checkpointName(step)});
  const {keep, best: keepsBest} = run.train.checkpoint;
  if (keepsBest && best?.step === step) await recordBest(run.out, best);
  if (prunes) await pruneCheckpoints(run.out, keep, keepsBest && best ? best.step : null);
  onEvent({kind: 'checkpoint', step, path});
}

/** Saves the step that was done last, unless it is; for a run that ends by an error, which is the one to be told: best effort. */
export async function saveAsItStands(loop: Loop, data: LoaderState): Promise<void> {
  const {step, savedStep, isLight} = loop.progress;
  if (step > savedStep || isLight) await saveStep(loop, {data, prunes: false}).catch(() => undefined);
}

function adapterRecord({run, inputs}: Loop, {rank, alpha}: {readonly rank: number; readonly alpha: number}) {
  const {model: fingerprint} = inputs;
  return {format: 1, base: run.model, ...(fingerprint !== undefined && {fingerprint}), rank, alpha} as const;
}
