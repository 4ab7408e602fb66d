import {type Finetune, type Kind, type Place, tinySetup} from './cases.js';
import type {Setup} from './protocol.js';
import {openSide, type SideCommand} from './side.js';

/** Losses of both sides may differ by this much after some steps of float32. */
const TOLERANCE = 5e-5;
const STEPS = 6;

/**
 * Proves that two sides train the same way: from the same weights, the losses of six steps of a tiny model agree.
 *
 * @returns the largest difference.
 * @throws Error with both lists of losses if they differ.
 */
export async function checkSameTraining(
  a: SideCommand,
  b: SideCommand,
  {kind, finetune}: {readonly kind: Kind; readonly finetune: Finetune},
  place: Place,
): Promise<number> {
  const setup = tinySetup(kind, finetune, {...place, precision: 'float32'});
  const [first, second] = [await tinyLosses(a, setup), await tinyLosses(b, setup)];
  const difference = Math.max(...first.map((loss, i) => Math.abs(loss - (second[i] ?? Number.NaN))));
  if (difference <= TOLERANCE) return difference;
  throw new Error(
    `${a.name} and ${b.name} train a tiny ${kind} model differently (${finetune}): losses ${show(first)} and ${show(second)}.`,
  );
}

async function tinyLosses(command: SideCommand, setup: Setup): Promise<number[]> {
  const side = openSide(command);
  try {
    await side.ask({kind: 'start', setup: {...setup, compile: command.compiles}});
    const {steps} = await side.ask({kind: 'steps', count: STEPS});
    return steps.map(({loss}) => loss);
  } finally {
    await side.close();
  }
}

function show(losses: readonly number[]): string {
  return losses.map((loss) => loss.toFixed(6)).join(' ');
}
