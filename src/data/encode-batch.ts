import type {Tokenizer} from '../tokenizer/tokenizer.js';
import {joinInts} from '../util/join.js';
import {type Encoded, type EncodeSampleOptions, encodeSample, sampleDigest} from './encode.js';
import type {Sample} from './sample.js';

/** A sample's ids and the hash that parts validation from training. */
export interface EncodedSample extends Encoded {
  readonly digest: string;
}

/** Encoded samples as they travel between threads: their values one after another. */
export interface EncodedBatch {
  readonly digests: readonly string[];
  readonly lengths: readonly number[];
  readonly ids: Int32Array;
  /** Null if all is learnt. */
  readonly mask: Int32Array | null;
}

/** Encodes samples in their order. @throws what {@link encodeSample} throws. */
export function encodeBatch(
  tokenizer: Tokenizer,
  samples: readonly Sample[],
  options: EncodeSampleOptions,
): EncodedSample[] {
  return samples.map((sample) => ({...encodeSample(tokenizer, sample, options), digest: sampleDigest(sample)}));
}

/** For the way to another thread. */
export function packBatch(encoded: readonly EncodedSample[]): EncodedBatch {
  const masks = encoded.flatMap(({mask}) => mask ?? []);
  return {
    digests: encoded.map(({digest}) => digest),
    lengths: encoded.map(({ids}) => ids.length),
    ids: joinInts(encoded.map(({ids}) => ids)),
    mask: masks.length > 0 ? joinInts(masks) : null,
  };
}

/** The other way. */
export function unpackBatch({digests, lengths, ids, mask}: EncodedBatch): EncodedSample[] {
  let at = 0;
  return digests.map((digest, i) => {
    const [begin, end] = [at, at + (lengths[i] ?? 0)];
    at = end;
    return {digest, ids: ids.subarray(begin, end), ...(mask && {mask: mask.subarray(begin, end)})};
  });
}
