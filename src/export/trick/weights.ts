import type {Routing} from '../../model/architecture.js';
import {SOFTMAX_ROUTING} from '../../model/architecture.js';
import {moeAt, redraft, times} from '../draft.js';
import type {Trick} from '../plan.js';

/** Puts the factor on all weights into the down projections of experts; none if it is one. */
export function scaleExperts({scale}: Routing): Trick[] {
  if (scale === 1) return [];
  return [
    {
      says: `multiplies the down projections of experts by ${scale}`,
      fidelity: roundingOf(scale),
      apply: (draft) => {
        const {architecture} = draft;
        return redraft(
          draft,
          {...architecture, routing: {...architecture.routing, scale: 1}},
          {'ffn.experts.down': async (before) => times(await before('ffn.experts.down'), scale)},
        );
      },
    },
  ];
}

/** Says the words of a routing in others that compute the same; none if it has them. */
export function reword(routing: Routing, words: Partial<Routing>): Trick[] {
  const isSaid = Object.entries(words).every(([key, word]) => routing[key as keyof Routing] === word);
  return isSaid ? [] : [rewording(words)];
}

function rewording(words: Partial<Routing>): Trick {
  return {
    says: 'says the weights of experts in other words',
    fidelity: 'exact',
    apply: (draft) => {
      const {architecture} = draft;
      const {score, order, renormalise, scale, weight} = architecture.routing;
      return {...draft, architecture: {...architecture, routing: {score, order, renormalise, scale, weight, ...words}}};
    },
  };
}

/** So small a factor that weights are equal to the last bit of float32, which is of use where choice goes by logits. */
const TINY = 2 ** -30;

/**
 * Makes weights of one out of softmax weights over the chosen experts: a small factor on the router leaves the choice and makes
 * the K weights alike, and K times the down projections makes them one.
 *
 * @param isByLogits whether the family chooses by logits: then any factor will do.
 */
export function evenShares(topK: number, isByLogits: boolean): Trick {
  const exact = roundingOf(topK);
  return {
    says: `makes routers small, so that the weights of experts are 1/${topK} each, and down projections ${topK} times as large`,
    fidelity: isByLogits ? exact : 'approximate',
    ...(!isByLogits && {measures: 'differences' as const}),
    apply: (draft, factors) => {
      const {architecture} = draft;
      const routing: Routing = {
        ...SOFTMAX_ROUTING,
        renormalise: !isByLogits, // the chosen ones' softmax sums to one by itself
        order: isByLogits ? 'topk-then-score' : 'score-then-topk',
      };
      return redraft(
        draft,
        {...architecture, routing},
        {
          'ffn.router': async (before, layer) => times(await before('ffn.router'), factors[layer] ?? TINY),
          'ffn.experts.down': async (before, layer) =>
            times(await before('ffn.experts.down'), moeAt(architecture, layer).topK * architecture.routing.scale),
        },
      );
    },
  };
}

/**
 * Makes weights of one out of sigmoid scores: a small factor on the router makes them a half each, and a factor doubles them.
 *
 * Biases that were added to logits are added to scores, whose slope at zero is a quarter.
 */
export function evenSigmoids(): Trick {
  return {
    says: 'makes routers small, so that the scores of experts are 1/2 each, and weights twice the scores',
    fidelity: 'approximate',
    measures: 'magnitudes',
    apply: (draft, factors) => {
      const {architecture} = draft;
      const {scale} = architecture.routing;
      const routing: Routing = {...SOFTMAX_ROUTING, score: 'sigmoid', scale: 2 * scale};
      return redraft(
        draft,
        {...architecture, routing},
        {
          'ffn.router': async (before, layer) => times(await before('ffn.router'), factors[layer] ?? 1),
          'ffn.bias': async (before, layer) => times(await before('ffn.bias'), (factors[layer] ?? 1) / 4),
        },
      );
    },
  };
}

/** Whether 16 bits carry a product with a factor as they carry what was multiplied. */
export function roundingOf(factor: number): 'exact' | 'rounded' {
  return Number.isInteger(Math.log2(factor)) ? 'exact' : 'rounded';
}
