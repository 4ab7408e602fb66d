// Times one round of balanced k-means with the exact assignment: npx tsx scripts/bench/assignment.ts
// Shapes: N points, J features, E clusters.
import {cpus} from 'node:os';
import {greedyAssignment, optimalAssignment} from '../../src/downcycle/assignment.js';
import {type Points, spreadCentroids, squaredDistances} from '../../src/downcycle/balanced-k-means.js';
import {createRng} from '../../src/util/rng.js';

const WIDTHS = [1536, 4096, 8192, 11008, 14336, 18944];
const CLUSTERS = [64, 256];
const FEATURES = 32;
/** random: normal. clustered: a quarter as many clumps as clusters, some much larger. sizes: multiples of one point. */
const KINDS = ['random', 'clustered', 'sizes'] as const;

function makePoints(kind: (typeof KINDS)[number], numPoints: number, numClusters: number): Points {
  const rng = createRng(1, `${kind}-${numPoints}`);
  const clump = Float64Array.from({length: (numClusters / 4) * FEATURES}, () => 3 * rng.normal());
  const rows = Array.from({length: numPoints}, () => {
    const size = rng.normal();
    const begin = Math.floor(rng.uniform() ** 2 * (numClusters / 4)) * FEATURES;
    return Array.from({length: FEATURES}, (_, j) => {
      if (kind === 'sizes') return size * (clump[j] ?? 0);
      return rng.normal() + (kind === 'clustered' ? (clump[begin + j] ?? 0) : 0);
    });
  });
  return {value_NJ: new Float64Array(rows.flat()), numFeatures: FEATURES};
}

/** Seconds of processor time, which other work on the machine hardly moves. */
function timed<T>(run: () => T): {readonly result: T; readonly seconds: number} {
  const start = process.cpuUsage();
  const result = run();
  return {result, seconds: process.cpuUsage(start).user / 1e6};
}

console.log(`${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.version}\n`);
console.log('| points | width | clusters | distances s | exact s | greedy dearer by |\n|---|---|---|---|---|---|');
for (const kind of KINDS) {
  for (const numClusters of CLUSTERS) {
    for (const width of WIDTHS) {
      const points = makePoints(kind, width - (width % numClusters), numClusters);
      const start = spreadCentroids(points, numClusters, createRng(2, 'start'));
      const distances = timed(() => squaredDistances(points, start));
      const capacity_E = new Int32Array(numClusters).fill(Math.floor(width / numClusters));
      const problem = {cost_NE: distances.result, capacity_E};
      const exact = timed(() => optimalAssignment(problem));
      const gap = greedyAssignment(problem).cost / exact.result.cost - 1;
      const cells = [kind, width, numClusters, distances.seconds.toFixed(2), exact.seconds.toFixed(2)];
      console.log(`| ${cells.join(' | ')} | ${(100 * gap).toFixed(0)}% |`);
    }
  }
}
