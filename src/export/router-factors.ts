// How small routers must be for their weights to be alike: as little as will do, since choices between near equals get lost.
import * as tf from '@tensorflow/tfjs';
import type {ModelFolder} from '../format/model-folder.js';
import type {Architecture} from '../model/architecture.js';
import {decoderLayer} from '../model/decoder.js';
import {hiddenTensor, startWalk, type Walk, type WalkText} from '../model/walk.js';
import {pickColumns} from '../op/top-k.js';
import type {Trick} from './plan.js';

/**
 * What counts of the logits of chosen experts: how far the largest is from their mean, where weights are shared out; else how
 * far any is from zero.
 */
type Measure = NonNullable<Trick['measures']>;

/** Largest relative difference of weights that is left: half a unit in the last place of bfloat16. */
const LARGEST = 2 ** -9;

/**
 * For each layer the power of two that, times the router, leaves at most {@link LARGEST} of what is measured on a text; 1 for
 * layers without experts. The engine must have been started.
 */
export async function routerFactors(
  folder: ModelFolder,
  architecture: Architecture,
  text: WalkText,
  measure: Measure,
): Promise<number[]> {
  const walk = await startWalk(folder, architecture, text);
  const layer = compileMeasured(walk, measure);
  const factors: number[] = [];
  try {
    for (let l = 0; l < architecture.ffn.length; l++) {
      await walk.load(l);
      factors.push(factorOf(await passMeasured(walk, layer)));
    }
  } finally {
    walk.dispose();
  }
  return factors;
}

/** At most one: what is alike already needs nothing. */
function factorOf(largest: number): number {
  return largest > LARGEST ? 2 ** Math.floor(Math.log2(LARGEST / largest)) : 1;
}

type MeasuredLayer = ReturnType<typeof compileMeasured>;

function compileMeasured(walk: Walk, measure: Measure) {
  return walk.compile('measured_layer', ({params, layout, context}, x_TD: tf.Tensor2D) => {
    const {next_TD, router} = decoderLayer(x_TD, params, layout, walk.architecture, context);
    if (!router) return {next_TD, largest: tf.scalar(0)};
    const chosen_TK = pickColumns(router.logit_TE, router.expert_TK);
    const from_TK = measure === 'magnitudes' ? chosen_TK : tf.sub(chosen_TK, tf.mean(chosen_TK, 1, true));
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
