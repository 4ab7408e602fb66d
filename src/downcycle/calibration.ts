// The text on which a dense model is watched.
import {createHash} from 'node:crypto';
import type {SourceShards} from '../data/shards.js';
import type {TokenShard} from '../format/token-shard.js';
import {DataError} from '../util/errors.js';
import type {ProfileOptions} from './options.js';

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
  const taskTokens = samplesPerTask * tokensPerSample;
  const tokens = new Int32Array(sources.length * taskTokens);
  for (const [task, {name, train}] of sources.entries()) {
    if (train.rows < samplesPerTask) {
      throw new DataError(`Source ${name} has ${train.rows} rows, profile.samplesPerTask asks for ${samplesPerTask}.`, {
        hint: 'Lower samplesPerTask or data.sequenceLength, or give more text.',
      });
    }
    for (let i = 0; i < samplesPerTask; i++) {
      const row = Math.floor((i * train.rows) / samplesPerTask);
      tokens.set(await beginningOf(train, row, tokensPerSample), task * taskTokens + i * tokensPerSample);
    }
  }
  return {
    tokens,
    sequenceLength: tokensPerSample,
    tasks: sources.map(({name}) => name),
    taskOfSample_J: Int32Array.from({length: sources.length * samplesPerTask}, (_, j) =>
      Math.floor(j / samplesPerTask),
    ),
    hash: createHash('sha256').update(tokens).digest('hex'),
  };
}

async function beginningOf(shard: TokenShard, row: number, tokens: number): Promise<Int32Array> {
  return (await shard.readRows(row, row + 1)).tokens.subarray(0, tokens);
}

/** The samples one by one. */
export function sequencesOf({tokens, sequenceLength}: Calibration): number[][] {
  return Array.from({length: tokens.length / sequenceLength}, (_, j) => [
    ...tokens.subarray(j * sequenceLength, (j + 1) * sequenceLength),
  ]);
}
