import fc from 'fast-check';
import {describe, expect, it} from 'vitest';
import {greedyAssignment} from '../../src/downcycle/assignment.js';
import {
  balancedKMeans,
  MAX_ROUNDS,
  type Points,
  spreadCentroids,
  squaredDistances,
} from '../../src/downcycle/balanced-k-means.js';
import {neuronPoints} from '../../src/downcycle/partition/expertweaver.js';
import {createRng, shuffle} from '../../src/util/rng.js';
import {fixture, fixtureProfile} from './golden.js';

function randomPoints(numPoints: number, numFeatures: number, seed: number): Points {
  const rng = createRng(seed, 'points');
  return {value_NJ: new Float64Array(numPoints * numFeatures).map(() => rng.normal()), numFeatures};
}

const rowsOf = ({value_NJ, numFeatures}: Points, ids: number[]): Float64Array =>
  new Float64Array(ids.flatMap((id) => Array.from(value_NJ.subarray(id * numFeatures, (id + 1) * numFeatures))));

const even = (numClusters: number, size: number) =>
  ({
    capacity_E: new Int32Array(numClusters).fill(size),
    assignment: 'optimal',
    maxRounds: MAX_ROUNDS,
  }) as const;

describe('squaredDistances', () => {
  it('is the sum of squared differences for any number of centroids', () => {
    fc.assert(
      fc.property(fc.integer({min: 1, max: 9}), fc.integer({min: 1, max: 7}), (numClusters, numFeatures) => {
        const points = randomPoints(5, numFeatures, 1);
        const centroids = randomPoints(numClusters, numFeatures, 2).value_NJ;
        const expected = Array.from({length: 5 * numClusters}, (_, at) => {
          const [n, e] = [Math.floor(at / numClusters), at % numClusters];
          const a = points.value_NJ.subarray(n * numFeatures, (n + 1) * numFeatures);
          return a.reduce((sum, x, j) => sum + (x - centroids[e * numFeatures + j]!) ** 2, 0);
        });
        expect(squaredDistances(points, centroids)).toBeAllClose(expected, {rtol: 1e-12});
      }),
    );
  });
});

describe('balancedKMeans', () => {
  const isShared = new Set(fixture.grid.shared_ids);
  const routed = Int32Array.from(Array.from({length: 256}, (_, id) => id).filter((id) => !isShared.has(id)));
  const points = neuronPoints(fixtureProfile, routed, false);
  const golden = fixture.grid.balanced_k_means;
  const start = rowsOf(
    points,
    golden.initial_centroid_ids!.map((id) => routed.indexOf(id)),
  );
  const numClusters = golden.expert_ids.length;

  it('has the costs of scipy in every round and ends in the same clusters', () => {
    const {clusterOf_N, costPerRound} = balancedKMeans(points, start, even(numClusters, 16));
    expect(costPerRound).toBeAllClose(golden.cost_per_round, {rtol: 1e-9, atol: 0});
    golden.expert_ids.forEach((ids, cluster) => {
      expect(Array.from(routed.filter((_id, n) => clusterOf_N[n] === cluster))).toEqual(ids);
    });
  });

  it('has the cost of the reference in a greedy first round', () => {
    const {costPerRound} = balancedKMeans(points, start, {...even(numClusters, 16), assignment: 'greedy'});
    expect(costPerRound[0]).toBeAllClose(golden.cost_greedy_in_id_order, {rtol: 1e-9, atol: 0});
    const cost_NE = squaredDistances(points, start);
    expect(greedyAssignment({cost_NE, capacity_E: new Int32Array(numClusters).fill(16)}).cost).toBe(costPerRound[0]);
  });

  it('never costs more than in the round before', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const random = randomPoints(60, 3, seed);
        const {costPerRound} = balancedKMeans(random, spreadCentroids(random, 6, createRng(seed, 'x')), even(6, 10));
        costPerRound.slice(1).forEach((cost, i) => {
          expect(cost).toBeLessThanOrEqual(costPerRound[i]! + 1e-9);
        });
      }),
      {numRuns: 30},
    );
  });

  it('stops after the rounds it is given', () => {
    expect(balancedKMeans(points, start, {...even(numClusters, 16), maxRounds: 2}).costPerRound).toHaveLength(2);
  });

  it('ends with the means of its clusters', () => {
    const {clusterOf_N, centroid_EJ} = balancedKMeans(points, start, even(numClusters, 16));
    const members = Array.from(clusterOf_N.keys()).filter((n) => clusterOf_N[n] === 3);
    const rows = members.map((n) => rowsOf(points, [n]));
    const mean = Array.from(rows[0]!, (_, j) => rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length);
    expect(centroid_EJ.subarray(3 * 32, 4 * 32)).toBeAllClose(mean, {rtol: 1e-9, atol: 1e-12});
  });

  it('finds clusters that are there', () => {
    const rng = createRng(1, 'blobs');
    const blob = Array.from({length: 40}, (_, n) => n % 4);
    const value_NJ = new Float64Array(blob.flatMap((b) => [100 * b + rng.normal(), rng.normal()]));
    const blobs = {value_NJ, numFeatures: 2};
    const {clusterOf_N} = balancedKMeans(blobs, spreadCentroids(blobs, 4, createRng(1, 'start')), even(4, 10));
    const first = clusterOf_N.slice(0, 4);
    expect(new Set(first).size).toBe(4);
    expect(Array.from(clusterOf_N)).toEqual(blob.map((b) => first[b]!));
  });

  it('puts permuted points into the same clusters', () => {
    const order = shuffle(
      Array.from({length: routed.length}, (_, i) => i),
      createRng(2, 'order'),
    );
    const permuted = {value_NJ: rowsOf(points, order), numFeatures: points.numFeatures};
    const plain = balancedKMeans(points, start, even(numClusters, 16)).clusterOf_N;
    const moved = balancedKMeans(permuted, start, even(numClusters, 16)).clusterOf_N;
    expect(Array.from(moved)).toEqual(order.map((n) => plain[n]));
  });

  it('fills a short last cluster to its own size', () => {
    const random = randomPoints(11, 2, 1);
    const capacity_E = [4, 4, 3];
    const {clusterOf_N} = balancedKMeans(random, spreadCentroids(random, 3, createRng(1, 'x')), {
      ...even(3, 4),
      capacity_E,
    });
    expect(capacity_E.map((_, e) => clusterOf_N.filter((cluster) => cluster === e).length)).toEqual(capacity_E);
  });

  it('keeps the centroid of a cluster that no point chose', () => {
    const two = {value_NJ: new Float64Array([0, 1]), numFeatures: 1};
    const {centroid_EJ} = balancedKMeans(two, new Float64Array([0, 50]), even(2, 2));
    expect(centroid_EJ).toBeAllClose([0.5, 50]);
  });
});

describe('spreadCentroids', () => {
  it('gives the same centroids for the same seed and others for another', () => {
    const points = randomPoints(50, 4, 1);
    const draw = (seed: number) => spreadCentroids(points, 5, createRng(seed, 'start'));
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });

  it('draws a point of each of a few far clumps', () => {
    const clumps = {value_NJ: new Float64Array([0, 1, 1e6, 1e6 + 1, 2e6, 2e6 + 1]), numFeatures: 1};
    for (let seed = 0; seed < 20; seed++) {
      const found = Array.from(spreadCentroids(clumps, 3, createRng(seed, 'x')), (x) => Math.round(x / 1e6));
      expect(found.sort()).toEqual([0, 1, 2]);
    }
  });

  it('draws every point once when there are as many clusters', () => {
    const points = randomPoints(7, 1, 5);
    expect(spreadCentroids(points, 7, createRng(1, 'x')).sort()).toEqual(points.value_NJ.slice().sort());
  });

  it('starts from equal points too', () => {
    const same = {value_NJ: new Float64Array(6).fill(3), numFeatures: 1};
    expect(spreadCentroids(same, 4, createRng(1, 'x'))).toBeAllClose([3, 3, 3, 3]);
  });

  it('refuses more clusters than points', () => {
    expect(() => spreadCentroids(randomPoints(2, 1, 1), 3, createRng(1, 'x'))).toThrow(RangeError);
  });
});
