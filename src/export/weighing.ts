// What the results of chosen experts are multiplied with, in the terms that decide which family can say it.
import {type Architecture, moeLayouts, type Routing} from '../model/architecture.js';
import {Inexpressible} from './plan.js';

/**
 * `softmax` over all experts as it is; `shares`, softmax over the chosen ones, which sums to one; `sigmoid` as it is;
 * `sigmoid-shares`, over their sum; `ones`. Times a factor: see {@link Routing}.
 */
export type Weighing = 'softmax' | 'shares' | 'sigmoid' | 'sigmoid-shares' | 'ones';

/** How a mixture weighs experts. @throws Inexpressible if no family of transformers does it so. */
export function weighingOf(architecture: Architecture): Weighing {
  const {routing} = architecture;
  refuseRouters(architecture);
  if (routing.topP !== undefined) throw new Inexpressible('a token uses as many experts as a top p asks for', ALWAYS_K);
  if (routing.reach !== undefined) throw new Inexpressible('experts are weighed by SparseMixer', RETRAIN);
  if (routing.weight === 'one-plus-scaled') {
    throw new Inexpressible(
      'experts weigh 1 + u times their score',
      'Convert with weights of one, or train routers of plain scores.',
    );
  }
  if (routing.weight === 'one') return 'ones';
  return routing.score === 'sigmoid' ? sigmoidOf(routing) : softmaxOf(routing);
}

/** Of one chosen expert, weights of one are shares of softmax: it has all of them. */
export function sharesIfOne(weighing: Weighing, architecture: Architecture): Weighing {
  return weighing === 'ones' && moeLayouts(architecture).every(({topK}) => topK === 1) ? 'shares' : weighing;
}

function softmaxOf({order, renormalise}: Routing): Weighing {
  return order === 'topk-then-score' || renormalise ? 'shares' : 'softmax';
}

function sigmoidOf({renormalise}: Routing): Weighing {
  return renormalise ? 'sigmoid-shares' : 'sigmoid';
}

const ALWAYS_K = 'Train with a fixed number of experts a token.';
const RETRAIN = 'Train routers with plain softmax for a while.';
const LINEAR =
  'Give it a linear router, which is another model to be measured anew: convert with --router gate-mean, or --router ridge to fit one (which has biases: glm4_moe).';

function refuseRouters(architecture: Architecture): void {
  for (const [l, layout] of architecture.ffn.entries()) {
    if (layout.kind === 'dense') continue;
    if (layout.router !== 'linear') throw new Inexpressible(`${ROUTERS[layout.router]} (layer ${l})`, LINEAR);
    if (layout.inner)
      throw new Inexpressible(
        `experts have experts inside (layer ${l})`,
        'Export the mixture that they were cut out of.',
      );
    if (layout.expertBias) {
      const remedy = 'Convert without biases of experts, or set them to zero and measure what that costs.';
      throw new Inexpressible(`the down projections of experts have biases (layer ${l})`, remedy);
    }
  }
}

const ROUTERS = {
  representative: 'the router computes the activation of a neuron of each expert, and every stock router is linear',
  mlp: 'the router has two layers with a tanh between, and every stock router is linear',
  cosine: 'the router compares directions, and every stock router is linear',
  autonomy: 'experts are chosen by the lengths of their own projections, and every stock router is linear',
} as const;
