// What every split says: counts, router, repair.
import {z} from 'zod';

/** λ of the refit of down projections. */
const REFIT_WEIGHT = 0.5;

/** Counts of chunks. */
export const countFields = {
  experts: z
    .int()
    .min(1)
    .describe(
      'Routed experts. experts + shared chunks of equal width make up the dense FFN, so their sum must divide its width, unless pad widens it.',
    ),
  shared: z
    .int()
    .min(0)
    .default(0)
    .describe('Shared part, in units of one expert: 2 is one shared expert twice as wide as a routed one.'),
  topK: z.int().min(1).describe('Routed experts each token passes through; the shared part comes on top.'),
  pad: z
    .boolean()
    .default(false)
    .describe(
      'Where experts + shared do not divide the width of the dense FFN, append neurons of zeros up to the next multiple, at most one to a chunk; they change nothing that it computes, and methods do not see them.',
    ),
};

/** Whether down projections are fitted, by the default of the method. */
export const repair = (fallback: 'none' | 'refit') =>
  z
    .enum(['none', 'refit'])
    .default(fallback)
    .describe(
      'refit fits the down projections to what the dense model gives on the calibration text of `profile`, layer by layer, in closed form.',
    );

/** Rounds of regrouping, by the default of the method. */
export const regroup = (fallback: number) =>
  z
    .int()
    .min(0)
    .default(fallback)
    .describe(
      'How often the neurons of the routed experts are dealt out anew: a ridge router is fitted to the experts that there are, and each neuron goes to the expert during whose choice it is most active on the calibration text of `profile`.',
    );

/** How down projections are fitted. */
export const repairFields = {
  repair: repair('none'),
  repairWeight: z
    .number()
    .positive()
    .default(REFIT_WEIGHT)
    .describe('How much refit holds to the dense weights, as a share of the mean square of the activations.'),
};

/** What can score the experts of a split. */
const ROUTER_NAMES = ['gate-mean', 'representative', 'ridge', 'centroid', 'random', 'mlp'] as const;

/** What scores the experts of a split; the field of the schema says what each is. */
export type RouterName = (typeof ROUTER_NAMES)[number];

interface RouterFacts {
  /** Whether the seed decides what it is. */
  readonly isDrawn: boolean;
  /** Whether it is there before anything is fitted, so that the routed part can be measured on the dense model. */
  readonly isScalable: boolean;
}

/** The routers. */
export const ROUTERS: Readonly<Record<RouterName, RouterFacts>> = {
  'gate-mean': {isDrawn: false, isScalable: true},
  representative: {isDrawn: false, isScalable: false},
  ridge: {isDrawn: false, isScalable: false},
  centroid: {isDrawn: true, isScalable: false},
  random: {isDrawn: true, isScalable: true},
  mlp: {isDrawn: true, isScalable: true},
};

/** What every split says; `router` and `weights` by the default of the method. */
export const cutFields = (router: RouterName, weights: 'score' | 'one') => ({
  ...countFields,
  router: z
    .enum(ROUTER_NAMES)
    .default(router)
    .describe(
      'What scores an expert. gate-mean: the mean of its gate rows. representative: the activation of its most typical neuron (CMoE). ridge: the ridge regression of its activity on the input of the FFN. centroid: the k-means centre of FFN inputs on which it is most active (LLaMA-MoE v2). random: a row drawn at random, the control. mlp: two layers with a tanh between them, drawn at random, to be trained (LLaMA-MoE v1).',
    ),
  weights: z
    .enum(['score', 'one', 'one-plus-scaled'])
    .default(weights)
    .describe(
      'What the result of a chosen expert is multiplied with. score: its softmax score, to be trained. one: 1, for use without training. one-plus-scaled: 1 + u x its softmax score, with a number u of each expert that is 0 until it is trained (CMoE).',
    ),
  outputScale: z
    .enum(['none', 'match'])
    .default('none')
    .describe(
      'match scales the routed sum of each layer so that its norm on the calibration text of `profile` is that of the dense part.',
    ),
  regroup: regroup(0),
  ...repairFields,
});

/** How active experts are dealt out to the layers, by the default of the method. */
export const allocation = (fallback: 'uniform' | 'sensitivity') =>
  z
    .enum(['uniform', 'sensitivity'])
    .default(fallback)
    .describe(
      'uniform: the same counts in every layer. sensitivity: more active experts where the loss feels them more, as many over all layers.',
    );

interface Repaired {
  readonly repair: 'none' | 'refit';
  readonly repairWeight: number;
}

interface Fitted extends Repaired {
  readonly router: RouterName;
  readonly weights: 'score' | 'one' | 'one-plus-scaled';
  readonly outputScale: 'none' | 'match';
  readonly regroup: number;
}

/** Where a schema puts what it finds wrong. */
interface Findings {
  addIssue(issue: {code: 'custom'; path: string[]; message: string}): void;
}

/** Adds an issue for a repair that is described but not made. */
export function requireRepair({repair, repairWeight}: Repaired, context: Findings): void {
  if (repair === 'refit' || repairWeight === REFIT_WEIGHT) return;
  const message = `${repairWeight} has no effect without repair refit. Set repair to refit, or leave repairWeight out.`;
  context.addIssue({code: 'custom', path: ['repairWeight'], message});
}

/** Adds an issue for settings that cannot be fitted together, each with what to change. */
export function requireFittable(settings: Fitted, context: Findings): void {
  const {router, weights, outputScale, repair, regroup} = settings;
  const refuse = (path: string, message: string): void => context.addIssue({code: 'custom', path: [path], message});
  requireRepair(settings, context);
  if (router === 'ridge' && weights !== 'one') {
    refuse('router', 'ridge needs weights one: what it foresees is no score. Set weights to one.');
  }
  if (router === 'representative' && regroup > 0) {
    refuse('router', `representative needs regroup 0, found ${regroup}: it stands for experts as they were cut.`);
  }
  if (outputScale === 'none') return;
  const needed = 'router gate-mean, random or mlp, weights score and repair none';
  const refuseMatched = (path: string, value: string): void =>
    refuse(
      path,
      `${path} ${value} does not go with outputScale match, which needs ${needed}. Set outputScale to none, or change it.`,
    );
  if (!ROUTERS[router].isScalable) refuseMatched('router', router);
  if (weights !== 'score') refuseMatched('weights', weights);
  if (repair !== 'none') refuseMatched('repair', repair);
}
