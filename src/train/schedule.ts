/** How the learning rate moves over the steps. */
export type Schedule =
  | {readonly kind: 'cosine'; readonly warmup: number; readonly final: number}
  | {readonly kind: 'constant'; readonly warmup: number};

/** Learning rate of step `t` of `steps`, counted from 1: a straight rise over `warmup`, then the schedule's shape. */
export function learningRate(schedule: Schedule, peak: number, t: number, steps: number): number {
  const {warmup} = schedule;
  if (t <= warmup) return (peak * t) / warmup;
  switch (schedule.kind) {
    case 'constant':
      return peak;
    case 'cosine': {
      const progress = (t - warmup) / Math.max(1, steps - warmup);
      return schedule.final + (peak - schedule.final) * 0.5 * (1 + Math.cos(Math.PI * progress));
    }
  }
}
