// How small routers must be for their weights to be alike: as little as will do, since choices between near equals get lost.
import * as tf from '../engine/tfjs.js';
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from '../model/architecture.js';
import {decoderLayer} from '../model/decoder.js';
import {hiddenTensor, startWalk, type Walk, type WalkText} from '../model/walk.js';
import {pickColumns} from '../op/top-k.js';
import {ModelError} from '../util/errors.js';
import type {RouterMeasure} from './plan.js';

/**
 * For each layer the power of two that, times the router, leaves at most so much of what is measured on a text; 1 for
 * layers without experts. The engine must have been started.
 * @throws ModelError if logits are not finite.
 */
export async function routerFactors(
  folder: ModelFolder,
  architecture: Architecture,
  text: WalkText,
  measure: RouterMeasure,
): Promise<number[]> {
  const walk = await startWalk(folder, architecture, text);
  const layer = compileMeasured(walk, measure);
  const factors: number[] = [];
  try {
    for (let l = 0; l < architecture.ffn.length; l++) {
      await walk.load(l);
      factors.push(factorOf(await passMeasured(walk, layer), measure.most));
    }
  } finally {
    walk.dispose();
  }
  return factors;
}

/** At most one: what is alike already needs nothing. */
function factorOf(largest: number, most: number): number {
  if (!Number.isFinite(largest)) throw new ModelError('A router gives logits that are not numbers.', {hint: DAMAGED});
  return largest > most ? 2 ** Math.floor(Math.log2(most / largest)) : 1;
}

const DAMAGED = 'Look for weights that are not finite.';

type MeasuredLayer = ReturnType<typeof compileMeasured>;

function compileMeasured(walk: Walk, measure: RouterMeasure) {
  return walk.compile('measured_layer', ({params, layout, context}, x_TD: tf.Tensor2D) => {
    const {next_TD, router} = decoderLayer(x_TD, params, layout, walk.architecture, context);
    if (!router) return {next_TD, largest: tf.scalar(0)};
    const chosen_TK = pickColumns(router.logit_TE, router.expert_TK);
    const from_TK = measure.of === 'magnitudes' ? chosen_TK : tf.sub(chosen_TK, tf.mean(chosen_TK, 1, true));
    return {next_TD, largest: tf.max(tf.abs(from_TK))};
  });
}

/** Takes the text through the loaded layer; the largest of what was measured. */
async function passMeasured(walk: Walk, layer: MeasuredLayer): Promise<number> {
  let most = 0;
  for (const batch of walk.batches) {
    const x_TD = hiddenTensor(walk, batch);
    const {next_TD, largest} = await layer(x_TD);
    batch.set(await next_TD.data());
    most = Math.max(most, (await largest.data())[0] as number);
    tf.dispose([x_TD, next_TD, largest]);
  }
  return most;
}
