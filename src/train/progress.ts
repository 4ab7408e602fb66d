// How far a run is, and how long the rest of it takes.
import type {BestLoss} from './best.js';
import type {Session} from './session.js';
import type {RecentLosses} from './spike.js';

/** What the loop carries from step to step. */
export interface Progress {
  step: number;
  /** Steps that changed something: what the optimizer counts by, as torch's does under a gradient scaler. */
  applied: number;
  tokens: number;
  flops: number;
  /** Step of the newest checkpoint; 0 before there is one. */
  savedStep: number;
  /** Whether that one is light, and of this step: a run does not end on such. */
  isLight: boolean;
  /** Where the next checkpoint copies its tokenizer and origin from: the newest one, since older ones are pruned. */
  filesFrom: string;
  /** Wall-clock of earlier sessions. */
  readonly secondsBefore: number;
  readonly startStep: number;
  readonly startedAt: number;
  recent: RecentLosses;
  best: BestLoss | null;
  /** When the first step of this session was done: until then it compiled, which tells nothing of the speed. */
  steadyAt: number | null;
}

/** Where a session begins: at the start of the run, or where its checkpoint stands. */
export function startOf({model, checkpoint}: Session): Progress {
  const {step, tokens, flops, seconds} = checkpoint?.trainer ?? {step: 0, tokens: 0, flops: 0, seconds: 0};
  return {
    step,
    applied: checkpoint?.trainer.applied ?? step,
    tokens,
    flops,
    savedStep: step,
    isLight: false,
    filesFrom: model.path,
    secondsBefore: seconds,
    startStep: step,
    startedAt: performance.now(),
    recent: checkpoint?.trainer.recent ?? [],
    best: checkpoint?.trainer.best ?? null,
    steadyAt: null,
  };
}

/** Wall-clock of the run, earlier sessions included. */
export function secondsOf({secondsBefore, startedAt}: Progress): number {
  return secondsBefore + (performance.now() - startedAt) / 1000;
}

/** Seconds left at the mean speed of this session; null before there is one. */
export function etaOf({step, startStep, steadyAt}: Progress, steps: number): number | null {
  const done = step - startStep - 1;
  return done < 1 || steadyAt === null ? null : ((performance.now() - steadyAt) / 1000 / done) * (steps - step);
}
