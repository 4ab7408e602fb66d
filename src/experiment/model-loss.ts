import type {Config} from '../config/schema.js';
import {evaluationBatches} from '../data/evaluation.js';
import {closeShards, ensureShards} from '../data/shards.js';
import {startEngine} from '../engine/start.js';
import type {TokenShard} from '../format/token-shard.js';
import {createLossMeter} from '../model/loss-meter.js';
import {loadModel} from '../model/model.js';
import {loadTokenizer} from '../tokenizer/tokenizer.js';
import {layoutOf} from './layout.js';

/** Loss of a model on the held-out rows that runs of a config are measured on; null if nothing is held out. */
export async function modelLoss(path: string, config: Config): Promise<number | null> {
  const {data, train} = config;
  const model = await loadModel(path);
  const {precision} = await startEngine(config.engine);
  const meter = createLossMeter(model, data.sequenceLength, precision);
  try {
    const sources = await ensureShards(data, await loadTokenizer(path), layoutOf(config).shards);
    try {
      const held = sources.flatMap(({valid}) => valid ?? []);
      return held.length === 0 ? null : (await meter.measure(batches(held))).loss;
    } finally {
      await closeShards(sources);
    }
  } finally {
    meter.dispose();
    model.dispose();
  }

  async function* batches(held: readonly TokenShard[]) {
    for (const shard of held) yield* evaluationBatches(shard, train.batch.sequences, train.validation.maxRows);
  }
}
