// Granular upcycling (arXiv 2410.07524): copies of parts of a dense FFN. Shapes: E experts, G shards, D width, F FFN width.
import type {GluTree} from '../../model/parameters.js';
import {ConfigError} from '../../util/errors.js';
import {divisibleExpertCounts, nearestThatDo} from '../allocation.js';
import {type GluMatrix, gatherNeurons} from '../convert-gather.js';
import {type StoredMatrix, valuesOf} from '../convert-source.js';
import type {GranularUpcycle} from '../upcycle-options.js';

/**
 * What shards must be multiplied with for the chosen ones to add up to the dense FFN: `G` if weights are renormalised,
 * `E G / topK` if they are not (arXiv 2410.07524, weight scaling: `E G² / T`, with E there for the copies of a shard).
 *
 * With renormalised weights the start equals the dense model exactly if topK is a multiple of G: equal router rows make
 * whole virtual groups win (but for two groups that tie to the last bit), so each shard weighs 1 / G in all.
 *
 * Without, each weight is taken to be 1 / E, which holds exactly only for a router that scores all experts alike; one
 * drawn at random gives the experts it chooses more.
 */
export function granularFactor({experts, topK, shards, renormalise}: GranularUpcycle): number {
  return renormalise ? shards : (experts * shards) / topK;
}

/**
 * One matrix of one expert: expert e holds shard e mod G, times its part of {@link granularFactor}.
 *
 * The paper gives each of three matrices the cube root. SiLU does not pass a factor on, so here the gate keeps its bits
 * and the two matrices that the result is linear in have about the root each: up a power of two, which every dtype
 * carries exactly, and down the rest, which is one as well if the factor is.
 */
export function shardMatrix(
  matrix: StoredMatrix,
  which: GluMatrix,
  expert: number,
  method: GranularUpcycle,
): Float32Array | Uint8Array {
  const width = (which === 'down' ? matrix.columns : matrix.rows) / method.shards;
  const begin = (expert % method.shards) * width;
  const neurons = Int32Array.from({length: width}, (_, i) => begin + i);
  const bytes = gatherNeurons(matrix, which, neurons);
  const scale = partsOf(granularFactor(method))[which];
  return scale === 1 ? bytes : valuesOf({dtype: matrix.dtype, bytes}).map((value) => value * scale);
}

function partsOf(factor: number): GluTree<number> {
  const up = 2 ** Math.floor(Math.log2(factor) / 2);
  return {gate: 1, up, down: factor / up};
}

/** Router rows [E, D] out of one row for each virtual group [E / G, D]: the G experts of a group have the same. */
export function groupRows(group: Float32Array, width: number, shards: number): Float32Array {
  const rows = new Float32Array(group.length * shards);
  for (let begin = 0; begin < group.length; begin += width) {
    const row = group.subarray(begin, begin + width);
    for (let shard = 0; shard < shards; shard++) rows.set(row, begin * shards + shard * width);
  }
  return rows;
}

/**
 * Refuses shards that do not cut the FFN into equal parts.
 *
 * @param where config path or `file:line:column` that the message starts with.
 * @throws ConfigError naming the nearest counts below and above that do.
 */
export function requireShards(numNeurons: number, {experts, shards}: GranularUpcycle, where: string): void {
  if (numNeurons % shards === 0) return;
  const possible = divisibleExpertCounts(numNeurons).filter((count) => experts % count === 0);
  throw new ConfigError(
    `${where}: shards (= ${shards}) must divide the FFN width ${numNeurons}, and experts (= ${experts}); ${nearestThatDo(possible, shards)}.`,
  );
}
