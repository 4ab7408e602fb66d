import {describe, expect, it} from 'vitest';
import {optimalAssignment} from '../../../src/downcycle/assignment.js';
import {worthiest} from '../../../src/downcycle/partition/all-shared.js';
import {cmoeSplit, markerDistances, mostMarked} from '../../../src/downcycle/partition/cmoe.js';
import {capacities} from '../../../src/downcycle/partition/cut.js';
import {type LayerProfile, markerCounts, unwatched} from '../../../src/downcycle/statistics.js';
import {createRng, shuffle} from '../../../src/util/rng.js';
import {GOLDENS, hasGoldens, permuteIds, readIds, readJson} from '../golden.js';

const F = 24;
const M = 3;

/** Tokens that mark M different neurons each, low ids more often. */
function randomMarkers(tokens: number, seed: number): LayerProfile {
  const rng = createRng(seed, 'markers');
  const marker_NM = new Int32Array(tokens * M);
  for (let t = 0; t < tokens; t++) {
    const ids = new Set<number>();
    while (ids.size < M) ids.add(Math.min(rng.int(F), rng.int(F)));
    marker_NM.set([...ids], t * M);
  }
  return {...unwatched(F), marker_NM, numMarkers: M};
}

describe('cmoeSplit', () => {
  const profile = randomMarkers(200, 1);
  const shape = {experts: 6, shared: 2, topK: 2};
  const plan = cmoeSplit(profile, shape);

  it('shares the neurons that are marked most often, and holds every neuron once in experts of one width', () => {
    const count_F = markerCounts(profile);
    const least = Math.min(...Array.from(plan.shared, (id) => count_F[id]!));
    for (const ids of plan.experts) for (const id of ids) expect(count_F[id]).toBeLessThanOrEqual(least);
    const all = [plan.shared, ...plan.experts].flatMap((ids) => Array.from(ids));
    expect(all.sort((a, b) => a - b)).toEqual(Array.from({length: F}, (_, id) => id));
    for (const ids of plan.experts) expect(ids).toHaveLength(3);
  });

  it.each([F, 17])('follows the neurons when the dense model permutes its %i', (numNeurons) => {
    const to_F = shuffle(
      Int32Array.from({length: numNeurons}, (_, id) => id),
      createRng(2, 'permutation'),
    );
    // Distinct counts: ties are broken by id, which a permutation changes.
    const distinct = {...unwatched(numNeurons), numMarkers: 1, marker_NM: Int32Array.from(risingMarkers(numNeurons))};
    const moved = {...distinct, marker_NM: distinct.marker_NM.map((id) => to_F[id]!)};
    const [before, after] = [cmoeSplit(distinct, shape), cmoeSplit(moved, shape)];
    expect(before.shared).toHaveLength(capacities(numNeurons, shape).shared);
    expect(after.shared).toEqual(permuteIds(before.shared, to_F));
  });

  it('measures the distance of marker columns token by token', () => {
    const ids = Int32Array.of(5, 6, 7, 20);
    const centroids = Int32Array.of(3, 7);
    const marks = (token: number, id: number): number =>
      profile.marker_NM.subarray(token * M, (token + 1) * M).includes(id) ? 1 : 0;
    const expected = Array.from(ids).flatMap((id) =>
      Array.from(centroids, (centroid) => {
        let distance = 0;
        for (let token = 0; token < 200; token++) distance += Math.abs(marks(token, id) - marks(token, centroid));
        return distance;
      }),
    );
    expect(Array.from(markerDistances(profile, ids, centroids))).toEqual(expected);
  });
});

/** Neuron i is marked by i + 1 tokens. */
function* risingMarkers(numNeurons: number): Generator<number> {
  for (let id = 0; id < numNeurons; id++) for (let token = 0; token <= id; token++) yield id;
}

interface GoldenAssignment {
  expert_size: number;
  shared_ids: number[];
  /** Shared neurons whose count a routed one has, too. */
  shared_ids_with_boundary_count: number[];
  centroid_ids: number[];
  cost: number;
}

describe.skipIf(!hasGoldens).each(['tiny_llama', 'stories260k'])('golden numbers of %s', (name) => {
  const golden = hasGoldens
    ? readJson<Record<string, {assignments: Record<string, GoldenAssignment[]>}>>(`${GOLDENS}/cmoe/${name}.json`)
    : {};

  it.each(['plain', 'normalised'])('shared sets, centroids and least distances, %s', (variant) => {
    const ids = readIds(`${GOLDENS}/cmoe/${name}.safetensors`, `${variant}.active_ids`);
    for (const layers of Object.values(golden[variant]!.assignments)) {
      const perLayer = ids.length / layers.length;
      const numNeurons = readIds(`${GOLDENS}/cmoe/${name}.safetensors`, `${variant}.counts`).length / layers.length;
      for (const [l, layer] of layers.entries()) {
        const marker_NM = ids.slice(l * perLayer, (l + 1) * perLayer);
        const profile: LayerProfile = {...unwatched(numNeurons), marker_NM, numMarkers: 10};
        const shared = new Set(layer.shared_ids);
        const found = new Set(worthiest(Float64Array.from(markerCounts(profile)), shared.size));
        const tied = new Set(layer.shared_ids_with_boundary_count);
        for (const id of shared) if (!tied.has(id)) expect(found.has(id)).toBe(true);
        const routed = Int32Array.from(Array.from({length: numNeurons}, (_, id) => id).filter((id) => !shared.has(id)));
        const count_F = Float64Array.from(markerCounts(profile));
        const centroids = Int32Array.from(layer.centroid_ids);
        const counts = (list: ArrayLike<number>) => Array.from(list, (id) => count_F[id]!).sort((a, b) => b - a);
        expect(counts(mostMarked(count_F, routed, centroids.length))).toEqual(counts(centroids));
        const cost_NE = markerDistances(profile, routed, centroids);
        const capacity_E = new Int32Array(centroids.length).fill(layer.expert_size);
        expect(optimalAssignment({cost_NE, capacity_E}).cost).toBe(layer.cost);
      }
    }
  });
});
