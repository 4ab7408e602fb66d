import type {EngineInfo} from '../engine/start.js';
import {optimizerOf} from './optimizer/options.js';
import type {TrainRun} from './session.js';
import type {Teacher} from './step.js';
import type {RunnerOptions} from './step-runner.js';

/** What decides of a run how its steps are computed. */
export interface StepParts {
  readonly run: Pick<TrainRun, 'train' | 'data'>;
  readonly engine: Pick<EngineInfo, 'precision'>;
  /** A model that runs beside the one in training; null for none, and where its words are kept. */
  readonly teacher: Teacher['model'];
}

/** What the steps of a run do. */
export function stepOptionsOf({run, engine, teacher}: StepParts): RunnerOptions {
  const {optimizer, balance, capacity, routing, finetune, ema, distill, recompute} = run.train;
  return {
    optimizer: optimizerOf(optimizer),
    recompute,
    dropout: finetune.kind === 'lora' ? finetune.dropout : 0,
    clip: optimizer.clip,
    balance,
    teacher: distill ? {...distill, model: teacher} : null,
    precision: engine.precision,
    capacity,
    routing,
    sequenceLength: run.data.sequenceLength,
    ...(ema && {emaDecay: ema.decay}),
  };
}
