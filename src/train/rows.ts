// What the rows of a run tell: that they come again, or cannot be read.
import type {LoaderState} from '../data/loader.js';
import {DataError, DowncycleError} from '../util/errors.js';
import {passesOf} from './batch-size.js';
import type {Loop} from './loop.js';
import {saveAsItStands} from './save-step.js';
import type {Session} from './session.js';

/** Says before a run begins which sources have fewer rows than it draws of them, a line each. */
export function repeatTexts({run, sources}: Pick<Session, 'run' | 'sources'>): string[] {
  const {batch, steps} = run.train;
  let rows = 0;
  for (let t = 1; t <= steps; t++) rows += passesOf(batch, t) * batch.sequences;
  const weights = sources.reduce((sum, {weight}) => sum + weight, 0);
  return sources.flatMap(({name, weight, train}) => {
    const drawn = Math.round((rows * weight) / weights);
    return drawn > train.rows ? [`${name} has ${train.rows} rows, and about ${drawn} are trained on: they repeat`] : [];
  });
}

/** Says which sources began another pass over their rows between two places in the text, a line each. */
export function epochTexts(before: LoaderState, after: LoaderState): string[] {
  return after.sources.flatMap(({name, rows, epoch}, i) =>
    epoch > (before.sources[i]?.epoch ?? 0)
      ? [`${name} begins again, epoch ${epoch + 1}: all its ${rows} rows were read`]
      : [],
  );
}

/** @throws what kept the rows of a step from being read; the state before the step is saved first. @param data where its rows begin. */
export async function refuseRows(loop: Loop, error: unknown, data: LoaderState): Promise<never> {
  if (!(error instanceof DowncycleError)) throw error;
  await saveAsItStands(loop, data);
  if (!(error instanceof DataError) || loop.run.data.damaged === 'skip') throw error;
  throw new DataError(error.message, {
    hint: 'Prepare the text again; or leave such rows out: set data.damaged to skip, and resume with --allow-change (train, recover).',
    cause: error,
  });
}
