import type {SourceShards} from '../data/shards.js';
import type {TokenShard} from '../format/token-shard.js';
import type {Model} from '../model/model.js';
import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {DataError, ModelError} from '../util/errors.js';

/** The tokenizer with no more ids than the embedding has rows: shards refuse the others when they are read. */
export function limitedTo({architecture}: Pick<Model, 'architecture'>, tokenizer: Tokenizer): Tokenizer {
  return {...tokenizer, vocabSize: Math.min(tokenizer.vocabSize, architecture.vocab)};
}

/**
 * Reads all shards through if the tokenizer knows ids that the embedding has no row for, as a few models' do; those of
 * training are not read where rows that hold such ids are left out.
 *
 * @throws ModelError if the text uses one of them: without this a run would end at the row that holds it.
 */
export async function refuseIdsBeyond(
  {architecture, path}: Model,
  {vocabSize}: Tokenizer,
  sources: readonly SourceShards[],
  damaged: 'stop' | 'skip',
): Promise<void> {
  if (vocabSize <= architecture.vocab) return;
  const shards = sources.flatMap(({train, valid}) => [
    ...(damaged === 'stop' ? [train] : []),
    ...(valid ? [valid] : []),
  ]);
  try {
    for (const shard of shards) await readThrough(shard);
  } catch (error) {
    if (!(error instanceof DataError)) throw error;
    throw new ModelError(
      `${path}: the embedding has ${architecture.vocab} rows, the tokenizer knows ${vocabSize} ids, and the text uses too many: ${error.message}`,
      {hint: 'Put the tokenizer beside the model that it was trained with.', cause: error},
    );
  }
}

async function readThrough(shard: TokenShard): Promise<void> {
  const {rowsPerBatch} = shard.metadata;
  for (let begin = 0; begin < shard.rows; begin += rowsPerBatch) {
    await shard.readRows(begin, Math.min(shard.rows, begin + rowsPerBatch));
  }
}
