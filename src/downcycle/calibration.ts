// The text on which a dense model is watched.
import {createHash} from 'node:crypto';
import type {SourceShards} from '../data/shards.js';
import type {TokenShard} from '../format/token-shard.js';
import {DataError} from '../util/errors.js';
import {joinInts} from '../util/join.js';
import type {ProfileOptions} from './profile-options.js';

/** Calibration samples, all equally long; those of one task follow each other. */
export interface Calibration {
  /** int32 [J, S] */
  readonly tokens: Int32Array;
  readonly sequenceLength: number;
  /** Name of each task, by its id. */
  readonly tasks: readonly string[];
  /** [J] */
  readonly taskOfSample_J: Int32Array;
  /** SHA-256 of the tokens, in hex. */
  readonly hash: string;
}

/**
 * The beginnings of rows spread evenly over the training rows of every source; each source is a task.
 *
 * @throws DataError if a source has fewer rows than there are to be samples.
 */
export async function readCalibration(
  sources: readonly SourceShards[],
  {samplesPerTask, tokensPerSample}: Pick<ProfileOptions, 'samplesPerTask' | 'tokensPerSample'>,
): Promise<Calibration> {
  const samples: Int32Array[] = [];
  for (const {name, train} of sources) {
    if (train.rows < samplesPerTask) {
      throw new DataError(`Source ${name} has ${train.rows} rows, profile.samplesPerTask asks for ${samplesPerTask}.`, {
        hint: 'Lower samplesPerTask or data.sequenceLength, or give more text.',
      });
    }
    for (let i = 0; i < samplesPerTask; i++) {
      const row = Math.floor((i * train.rows) / samplesPerTask);
      samples.push(await beginningOf(train, row, tokensPerSample));
    }
  }
  const names = sources.map(({name}) => name);
  return calibrationFrom(names, samples, {samplesPerTask, tokensPerSample});
}

/** Calibration text out of its samples, `samplesPerTask` of each task in turn. */
export function calibrationFrom(
  tasks: readonly string[],
  samples: readonly Int32Array[],
  {samplesPerTask, tokensPerSample}: Pick<ProfileOptions, 'samplesPerTask' | 'tokensPerSample'>,
): Calibration {
  const tokens = joinInts(samples);
  return {
    tokens,
    sequenceLength: tokensPerSample,
    tasks,
    taskOfSample_J: Int32Array.from({length: samples.length}, (_, j) => Math.floor(j / samplesPerTask)),
    hash: createHash('sha256').update(tokens).digest('hex'),
  };
}

async function beginningOf(shard: TokenShard, row: number, tokens: number): Promise<Int32Array> {
  return (await shard.readRows(row, row + 1)).tokens.subarray(0, tokens);
}
