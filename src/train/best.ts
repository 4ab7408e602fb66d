// The lowest validation loss of a run: which checkpoint is kept for it, and when the run gives up.
import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import {z} from 'zod';
import {writeFileAtomic} from '../util/atomic.js';

/** The lowest validation loss so far, the start's included, and how many validations there were since. */
export const bestLossSchema = z.strictObject({step: z.int(), loss: z.number(), since: z.int()}).readonly();

/** See {@link bestLossSchema}. */
export type BestLoss = z.infer<typeof bestLossSchema>;

/** File of a run folder that names its best checkpoint. */
const RECORD = 'best.json';

/** The best after one more validation; a loss that is not finite is none. */
export function withValidation(best: BestLoss | null, step: number, loss: number): BestLoss | null {
  if (Number.isFinite(loss) && (!best || loss < best.loss)) return {step, loss, since: 0};
  return best && {...best, since: best.since + 1};
}

/** Whether so many validations found nothing better that the run ends. */
export function isOutOfPatience(best: BestLoss | null, patience: number | undefined): boolean {
  return patience !== undefined && best !== null && best.since >= patience;
}

/** Writes `best.json`, which says step and validation loss of the best checkpoint; removes it if there is none yet. */
export async function recordBest(run: string, best: BestLoss | null): Promise<void> {
  const path = join(run, RECORD);
  if (!best || best.step === 0) await rm(path, {force: true});
  else await writeFileAtomic(path, `${JSON.stringify({step: best.step, loss: best.loss})}\n`);
}
