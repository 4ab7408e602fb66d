import {z} from 'zod';

const warmup = z
  .int()
  .min(0)
  .default(0)
  .describe('Steps over which the learning rate rises from 0 to its peak, straight.');

const final = z.number().min(0).default(0).describe('Learning rate of the last step.');

/** How the learning rate moves over the steps. */
export const scheduleSchema = z
  .discriminatedUnion('kind', [
    z.strictObject({
      kind: z
        .literal('cosine')
        .optional()
        .default('cosine')
        .describe('Half a cosine from the peak to `final` at the last step.'),
      warmup,
      final,
    }),
    z.strictObject({
      kind: z.literal('linear').describe('A straight line from the peak to `final` at the last step.'),
      warmup,
      final,
    }),
    z.strictObject({
      kind: z
        .literal('wsd')
        .describe('Warm-up, stable, decay: the peak until the last `decay` steps, then down to `final` (MiniCPM).'),
      warmup,
      decay: z
        .number()
        .positive()
        .refine((decay) => decay < 1 || Number.isInteger(decay), 'expected whole steps, or a share below 1')
        .default(0.2)
        .describe('Steps of the decay at the end; below 1 their share of all steps.'),
      shape: z
        .enum(['linear', 'cosine', '1-sqrt'])
        .default('1-sqrt')
        .describe('How the rate falls; 1-sqrt, 1 - √progress, did best in arXiv 2405.18392.'),
      final,
    }),
    z.strictObject({kind: z.literal('constant').describe('The peak to the end.'), warmup}),
  ])
  .describe('Learning rate over the steps.');

/** A checked `train.schedule`. */
export type Schedule = Readonly<z.output<typeof scheduleSchema>>;

/** Learning rate of step `t` of `steps`, counted from 1: a straight rise over `warmup`, then the schedule's shape. */
export function learningRate(schedule: Schedule, peak: number, t: number, steps: number): number {
  const {warmup} = schedule;
  if (t <= warmup) return (peak * t) / warmup;
  if (schedule.kind === 'constant') return peak;
  const begin = schedule.kind === 'wsd' ? steps - decaySteps(schedule, steps) : warmup;
  if (t <= begin) return peak;
  const progress = (t - begin) / Math.max(1, steps - begin);
  return schedule.final + (peak - schedule.final) * heightLeft(shapeOf(schedule), progress);
}

/** Steps over which a schedule of kind wsd falls. */
export function decaySteps({decay}: Wsd, steps: number): number {
  return decay < 1 ? Math.max(1, Math.round(decay * steps)) : decay;
}

type Wsd = Extract<Schedule, {kind: 'wsd'}>;
type Shape = 'linear' | 'cosine' | '1-sqrt';

function shapeOf(schedule: Exclude<Schedule, {kind: 'constant'}>): Shape {
  return schedule.kind === 'wsd' ? schedule.shape : schedule.kind;
}

/** 1 at the peak, where progress is 0, and 0 at its end, 1. */
function heightLeft(shape: Shape, progress: number): number {
  switch (shape) {
    case 'linear':
      return 1 - progress;
    case 'cosine':
      return 0.5 * (1 + Math.cos(Math.PI * progress));
    case '1-sqrt':
      return 1 - Math.sqrt(progress);
  }
}
