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
/** Largest relative difference of weights that is left where it goes by scores: half a unit in the last place of bfloat16. */
const ALIKE = 2 ** -9;

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
    isTiny: true,
    ...(!isByLogits && {measures: {of: 'differences', most: ALIKE}}),
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
          'ffn.router': async (before, layer) =>
            times(await before('ffn.router'), isByLogits ? TINY : factorAt(factors, layer)),
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
    measures: {of: 'magnitudes', most: ALIKE},
    apply: (draft, factors) => {
      const {architecture} = draft;
      const {scale} = architecture.routing;
      const routing: Routing = {...SOFTMAX_ROUTING, score: 'sigmoid', scale: 2 * scale};
      return redraft(
        draft,
        {...architecture, routing},
        {
          'ffn.router': async (before, layer) => times(await before('ffn.router'), factorAt(factors, layer)),
          'ffn.bias': async (before, layer) => times(await before('ffn.bias'), factorAt(factors, layer) / 4),
        },
      );
    },
  };
}

/**
 * Chooses one expert by sigmoid scores in place of logits; alone it has all of the weight, whatever its score. Routers are
 * made small enough that scores do not all become one.
 */
export function oneBySigmoid(): Trick {
  return {
    says: 'chooses the one expert of a token by a sigmoid score, which is all of the weight',
    fidelity: 'exact',
    measures: {of: 'magnitudes', most: 1},
    apply: (draft, factors) => {
      const {architecture} = draft;
      const {scale} = architecture.routing;
      return redraft(
        draft,
        {...architecture, routing: {...SOFTMAX_ROUTING, score: 'sigmoid', renormalise: true, scale}},
        {'ffn.router': async (before, layer) => times(await before('ffn.router'), factorAt(factors, layer))},
      );
    },
  };
}

/** Chooses by sigmoid scores in place of logits: the same but where scores are so near one that they are equal. */
export function chooseByScores({order}: Routing): Trick[] {
  if (order === 'score-then-topk') return [];
  return [
    {
      says: 'chooses experts by scores in place of logits, of which the largest have equal scores',
      fidelity: 'approximate',
      apply: (draft) => {
        const {architecture} = draft;
        return {
          ...draft,
          architecture: {...architecture, routing: {...architecture.routing, order: 'score-then-topk'}},
        };
      },
    },
  ];
}

function factorAt(factors: readonly number[], layer: number): number {
  const factor = factors[layer];
  if (factor === undefined || !Number.isFinite(factor)) throw new Error(`no factor was measured for layer ${layer}`);
  return factor;
}

/** Whether 16 bits carry a product with a factor as they carry what was multiplied. */
export function roundingOf(factor: number): 'exact' | 'rounded' {
  return Number.isInteger(Math.log2(factor)) ? 'exact' : 'rounded';
}
