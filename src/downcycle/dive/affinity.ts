// Which tasks go together: those on which pruning keeps a model good at the same text (DIVE, arXiv 2506.09351, section 3.1).
import {averageLinkage, type Matrix} from './average-linkage.js';

/** How tasks are alike, and the clusters that follow from it. */
export interface Affinity {
  /** Of the model pruned on task i, on the text of task j. */
  readonly perplexity: number[][];
  /** Pearson correlation of the rows of what {@link normalised} makes of it. */
  readonly correlation: number[][];
  /** Ids of the tasks of each cluster, ascending; clusters in the order of their first task. */
  readonly clusters: number[][];
}

/** Clusters tasks by the perplexities of models that were pruned on each, [n, n], into `count` of the n tasks. */
export function affinityOf(perplexity: number[][], count: number): Affinity {
  const correlation = correlations(normalised(perplexity));
  const distance = correlation.map((row) => row.map((r) => 1 - r));
  return {perplexity, correlation, clusters: averageLinkage(distance, count)};
}

/** `min_i P_ij / P_ij`: what each text costs at least over what it costs, so that hard text does not count more. */
export function normalised(perplexity: Matrix): number[][] {
  return perplexity.map((row) =>
    row.map((value, j) => Math.min(...perplexity.map((other) => other[j] ?? value)) / value),
  );
}

function correlations(rows: Matrix): number[][] {
  return rows.map((row, i) => rows.map((other, j) => (i === j ? 1 : pearson(row, other))));
}

/** Pearson correlation of two rows; 0 if one of them does not vary. */
export function pearson(a: readonly number[], b: readonly number[]): number {
  const [x, y] = [centred(a), centred(b)];
  const lengths = Math.sqrt(dot(x, x) * dot(y, y));
  return lengths > 0 ? dot(x, y) / lengths : 0;
}

function centred(row: readonly number[]): number[] {
  const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
  return row.map((value) => value - mean);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}
