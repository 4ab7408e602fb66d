import type {Tokenizer} from '../tokenizer/tokenizer.js';
import type {EncodeSampleOptions} from './encode.js';
import {type EncodedSample, encodeBatch, unpackBatch} from './encode-batch.js';
import {type EncodePool, startEncodePool} from './encode-pool.js';
import type {Sample} from './sample.js';

/** Characters of a batch, at least: enough for a thread not to wait for its next. */
const BATCH_LENGTH = 2 ** 16;
/** Characters encoded here before threads are started, for a tokenizer takes a while to load. */
const ALONE = 2 ** 19;
/** Batches of a thread that are under way. */
const DEPTH = 2;

/**
 * Encodes samples in `numThreads` threads and gives them out in their order, as one thread would.
 *
 * Little text is encoded here, without threads. What a thread fails on is encoded here again, so that errors are the same.
 * @throws what encodeSample throws.
 */
export async function* encodeSamples(
  samples: AsyncIterable<Sample>,
  tokenizer: Tokenizer,
  options: EncodeSampleOptions,
  numThreads: number,
): AsyncGenerator<EncodedSample> {
  const {folder, fingerprint} = tokenizer;
  const underWay: Promise<EncodedSample[]>[] = [];
  let pool: EncodePool | null = null;
  let length = 0;
  const encode = async (batch: readonly Sample[]): Promise<EncodedSample[]> => {
    const encoded = await pool?.encode(batch);
    return encoded ? unpackBatch(encoded) : encodeBatch(tokenizer, batch, options);
  };
  try {
    for await (const batch of inBatches(samples)) {
      length += lengthOf(batch);
      if (numThreads > 1 && length > ALONE) pool ??= startEncodePool(numThreads, {folder, fingerprint, options});
      const encoding = encode(batch);
      encoding.catch(() => undefined); // thrown when its turn comes
      if (underWay.push(encoding) > (pool ? DEPTH * numThreads : 0)) yield* (await underWay.shift()) ?? [];
    }
    for (const encoding of underWay) yield* await encoding;
  } finally {
    await pool?.close();
  }
}

async function* inBatches(samples: AsyncIterable<Sample>): AsyncGenerator<Sample[]> {
  let batch: Sample[] = [];
  let length = 0;
  for await (const sample of samples) {
    batch.push(sample);
    length += lengthOf([sample]);
    if (length < BATCH_LENGTH) continue;
    yield batch;
    [batch, length] = [[], 0];
  }
  if (batch.length > 0) yield batch;
}

function lengthOf(samples: readonly Sample[]): number {
  return samples.reduce((sum, sample) => sum + sampleLength(sample), 0);
}

function sampleLength(sample: Sample): number {
  switch (sample.kind) {
    case 'text':
      return sample.text.length;
    case 'prompt':
      return sample.prompt.length + sample.completion.length;
    case 'chat':
      return sample.messages.reduce((sum, {content}) => sum + content.length, 0);
  }
}
