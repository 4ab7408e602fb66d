// Every layer of both golden models; one layer of them is kept in test/fixtures and checked beside the functions.
import {describe, expect, it} from 'vitest';
import {
  adaptiveAllocation,
  PAPER_RULE,
  sharedChunks,
  sharedRatio,
  specialisedShare,
} from '../../src/downcycle/allocation.js';
import {balancedKMeans, MAX_ROUNDS} from '../../src/downcycle/balanced-k-means.js';
import {neuronPoints, universalNeurons} from '../../src/downcycle/partition/expertweaver.js';
import {routerRows} from '../../src/downcycle/router-rows.js';
import {coefficientOfVariation, type LayerProfile, neuronCv, taskMeans} from '../../src/downcycle/statistics.js';
import {
  GOLDENS,
  type Golden,
  type GoldenCut,
  groupedProfile,
  hasGoldens,
  layerOf,
  readJson,
  readTensors,
} from './golden.js';

const models = [
  {name: 'tiny_llama', weights: 'tiny_llama/model.safetensors', numLayers: 3, numNeurons: 256},
  {name: 'stories260k', weights: 'stories260k/model/model.safetensors', numLayers: 5, numNeurons: 172},
];

describe.skipIf(!hasGoldens).each(models)('golden numbers of $name', ({name, weights, numLayers, numNeurons}) => {
  const tensors = hasGoldens ? readTensors(`${GOLDENS}/expertweaver/${name}.safetensors`) : {};
  const golden = hasGoldens ? readJson<Golden>(`${GOLDENS}/expertweaver/${name}.json`) : emptyGolden();
  const layers = Array.from({length: numLayers}, (_, layer) => layer);
  const profileOf = (layer: number): LayerProfile =>
    groupedProfile(layerOf(tensors.gate_mean!, layer, numLayers), numNeurons, 4);
  const cuts = Object.values(golden.shared).flatMap(({expert_size: width, expert_count: count, layers: byLayer}) =>
    byLayer.map((cut, layer) => ({cut, layer, width, count})),
  );

  it.each(['tasks', 'samples'] as const)('CV over %s', (over) => {
    for (const layer of layers) {
      const expected = layerOf(tensors[`cv_over_${over}`]!, layer, numLayers);
      const received = neuronCv(profileOf(layer), over);
      const usual = Array.from(expected.keys()).filter((i) => expected[i]! < 10);
      expect(usual.map((i) => received[i]!)).toBeAllClose(
        usual.map((i) => expected[i]!),
        {rtol: 1e-4, atol: 0},
      );
    }
  });

  it.each([
    ['tasks', 0],
    ['tasks', 1],
    ['samples', 0],
    ['samples', 1],
  ] as const)('r and alpha from signed activations over %s, ddof %i', (over, ddof) => {
    const expected = golden.allocations[`signed_over_${over}_ddof${ddof}`]!;
    const r = layers.map((layer) => {
      const rows = over === 'tasks' ? taskMeans(profileOf(layer)) : profileOf(layer).gateMean_JF;
      return specialisedShare(coefficientOfVariation(rows, numNeurons, ddof), PAPER_RULE.cvThreshold);
    });
    expect(r).toEqual(expected.r);
    expect(r.map((share) => sharedRatio(share, PAPER_RULE))).toEqual(expected.alpha);
  });

  it('number of shared experts, and their neurons', () => {
    for (const {cut, layer, width, count} of cuts) {
      expect(Math.min(sharedChunks(cut.alpha, numNeurons, width), count)).toBe(cut.shared_experts);
      const counts = {experts: count, shared: 0, topK: count};
      const {shared} = adaptiveAllocation(neuronCv(profileOf(layer), 'tasks'), counts, PAPER_RULE, 'arm');
      expect(shared).toBe(cut.shared_experts);
      const ids = universalNeurons(profileOf(layer), cut.shared_experts * width, {sharedBy: 'mean-abs', cv: 'tasks'});
      expect(Array.from(ids)).toEqual(cut.shared_ids);
    }
  });

  it('costs of every round and last clusters of balanced k-means', () => {
    for (const {cut, layer, width} of cuts) expectClusters(profileOf(layer), cut, width);
  });

  it('router rows of fixed partitions', () => {
    const model = readTensors(`${GOLDENS}/${weights}`);
    for (const [part, {expert_ids: ids}] of Object.entries(golden.partitions)) {
      const experts = ids.map((expert) => Int32Array.from(expert));
      for (const layer of layers) {
        const gate_FD = model[`model.layers.${layer}.mlp.gate_proj.weight`]!;
        const expected = layerOf(tensors[`${part}.router_rows`]!, layer, numLayers);
        expect(routerRows(gate_FD, 64, experts)).toBeAllClose(expected, {rtol: 0, atol: 1e-5});
      }
    }
  });
});

/** The goldens hold no clusters where the routed neurons do not fill the experts exactly. */
function expectClusters(profile: LayerProfile, cut: GoldenCut, width: number): void {
  const {initial_centroid_ids: starts, cost_per_round: costs, ...golden} = cut.balanced_k_means;
  if (!starts) return;
  const isShared = new Set(cut.shared_ids);
  const all = Int32Array.from({length: profile.numNeurons}, (_, id) => id);
  const routed = all.filter((id) => !isShared.has(id));
  const points = neuronPoints(profile, routed, false);
  const start_EJ = neuronPoints(profile, Int32Array.from(starts), false).value_NJ;
  const capacity_E = new Int32Array(starts.length).fill(width);
  const run = (assignment: 'optimal' | 'greedy') =>
    balancedKMeans(points, start_EJ, {capacity_E, assignment, maxRounds: MAX_ROUNDS});
  const {clusterOf_N, costPerRound} = run('optimal');
  expect(costPerRound).toBeAllClose(costs, {rtol: 1e-9, atol: 0});
  const ids = starts.map((_, cluster) => Array.from(routed.filter((_id, n) => clusterOf_N[n] === cluster)));
  expect(ids).toEqual(golden.expert_ids);
  expect(run('greedy').costPerRound[0]).toBeAllClose(golden.cost_greedy_in_id_order, {rtol: 1e-9, atol: 0});
}

function emptyGolden(): Golden {
  return {allocations: {}, shared: {}, partitions: {}};
}
