// LLaMA-MoE (v1 arXiv 2406.16554, v2 arXiv 2411.15708): five ways to cut an FFN.
import type {Rng} from '../../util/rng.js';
import type {LayerShape} from '../allocation.js';
import type {LayerPlan} from '../plan.js';
import {type LayerProfile, rankAscending} from '../statistics.js';
import {contribution, worthiest} from './all-shared.js';
import {coActivationGroups} from './co-activation.js';
import {contiguousSplit} from './contiguous.js';
import {capacities, idsWithout} from './cut.js';
import {moeficationSplit, type WeighedLayer} from './moefication.js';
import {randomSplit} from './random.js';

/** By lot, in order, by gate rows as they are, by the tokens that mark neurons, or by what the loss says of them. */
export type LlamaMoeSplit = 'random' | 'contiguous' | 'k-means' | 'co-activation' | 'importance';

/** Splits a layer in one of the ways. */
export function llamaMoeSplit(layer: WeighedLayer, shape: LayerShape, split: LlamaMoeSplit, rng: Rng): LayerPlan {
  const {profile} = layer;
  switch (split) {
    case 'random':
      return randomSplit(profile.numNeurons, shape, rng);
    case 'contiguous':
      return contiguousSplit(profile.numNeurons, shape);
    case 'k-means':
      return moeficationSplit(layer, shape, {normalise: false}, rng);
    case 'co-activation':
      return coActivationSplit(profile, shape, rng);
    case 'importance':
      return importanceSplit(profile, shape);
  }
}

/** Groups of neurons that mark the same tokens; those of the largest mean |h|·|Wd| are shared, if any, as in weave. */
export function coActivationSplit(profile: LayerProfile, shape: LayerShape, rng: Rng): LayerPlan {
  const {shared: numShared, capacity_E} = capacities(profile.numNeurons, shape);
  const shared = worthiest(contribution(profile), numShared);
  const routed = idsWithout(shared, profile.numNeurons);
  return {shared, experts: coActivationGroups(profile, routed, capacity_E, rng), topK: shape.topK};
}

/**
 * The most important neurons of all are shared (the residual expert of v2); the rest is dealt out to the experts, the
 * most important first and in snake order, so that their importance differs by no more than that of one neuron.
 *
 * This is our reading: experts as alike as in a random split, but by no chance, so the same for every seed. v1 also lets
 * the experts of several clusters of text pick by their own importance, and share neurons, which no plan here can hold.
 */
export function importanceSplit(profile: LayerProfile, shape: LayerShape): LayerPlan {
  const importance_F = profile.gradients?.importance_F ?? new Float32Array(0);
  const ranked = rankAscending(Float64Array.from(importance_F, (value) => -value));
  const {shared: numShared} = capacities(profile.numNeurons, shape);
  return {
    shared: ranked.slice(0, numShared).sort(),
    experts: dealt(ranked.subarray(numShared), shape.experts),
    topK: shape.topK,
  };
}

/**
 * Ids dealt to hands like cards: first hand to last, then back, so that no hand gets every better one of a round. Of a last
 * round that does not go round, the last hands get none, as in {@link capacities}.
 */
function dealt(ids: Int32Array, numHands: number): Int32Array[] {
  const handOf = (n: number): number => {
    const round = Math.floor(n / numHands);
    const seat = n % numHands;
    const inRound = Math.min(numHands, ids.length - round * numHands);
    return round % 2 === 0 ? seat : inRound - 1 - seat;
  };
  return Array.from({length: numHands}, (_, hand) => ids.filter((_id, n) => handOf(n) === hand).sort());
}
