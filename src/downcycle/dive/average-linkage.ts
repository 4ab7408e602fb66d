// Hierarchical clustering by average linkage (UPGMA: Sokal and Michener 1958).

/** Numbers by row and column. */
export type Matrix = readonly (readonly number[])[];

/**
 * Joins the two clusters of least mean distance, the first pair among equals, until `count` are left; O(n³).
 *
 * @param distance symmetric, [n, n].
 * @returns items of each cluster, ascending; clusters in the order of their first item.
 */
export function averageLinkage(distance: Matrix, count: number): number[][] {
  let clusters = distance.map((_, item) => [item]);
  while (clusters.length > count) {
    const [first, second] = nearestPair(clusters, distance);
    const joined = [...(clusters[first] ?? []), ...(clusters[second] ?? [])].sort((a, b) => a - b);
    clusters = clusters.map((cluster, c) => (c === first ? joined : cluster)).filter((_, c) => c !== second);
  }
  return clusters;
}

function nearestPair(clusters: Matrix, distance: Matrix): [first: number, second: number] {
  let [nearest, least]: [[number, number], number] = [[0, 1], Number.POSITIVE_INFINITY];
  for (const [a, left] of clusters.entries()) {
    for (let b = a + 1; b < clusters.length; b++) {
      const mean = meanDistance(left, clusters[b] ?? [], distance);
      if (mean < least) [nearest, least] = [[a, b], mean];
    }
  }
  return nearest;
}

function meanDistance(left: readonly number[], right: readonly number[], distance: Matrix): number {
  let sum = 0;
  for (const i of left) for (const j of right) sum += distance[i]?.[j] ?? 0;
  return sum / (left.length * right.length);
}
