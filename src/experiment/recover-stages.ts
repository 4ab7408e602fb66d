// What a recovery trains, by the settings of the papers.
import {type Architecture, moeLayouts} from '../model/architecture.js';
import {leavesOf, parameterSpecs} from '../model/parameters.js';
import type {TrainInput} from '../train/options.js';
import {type Part, partOf} from '../train/part.js';
import {UsageError} from '../util/errors.js';

/** Whose settings a recovery has. */
export const RECIPES = ['cmoe', 'dive'] as const;

/** One of {@link RECIPES}. */
export type Recipe = (typeof RECIPES)[number];

/** One run of a recovery. */
export interface RecoverStage {
  /** Its folder in that of the experiment. */
  readonly folder: 'model' | 'routers';
  /** Rows of text it is trained on. */
  readonly samples: number;
  /** What the paper says; steps, warm-up and validation hang on the rows of a step. */
  readonly train: TrainInput;
}

/** Parts whose matrices get low-rank terms in CMoE's recovery. */
const ADAPTED: readonly Part[] = ['attention', 'ffn', 'shared', 'experts'];
/** Learning rate of u in CMoE's weights of one and a scaled score. */
const SCALE_RATE = 1e-3;

/**
 * The runs of a recovery, one after another; the last one gives the model.
 *
 * - cmoe (arXiv 2502.04416, section 4): LoRA of rank 8 and alpha 32 on attention and experts at 5.65e-5, biases in place
 *   of a balance loss; what scores count in the weights, if the model has that, at 1e-3.
 * - dive (arXiv 2506.09351): routers alone, all experts active under a cold softmax, on a tenth of the text; then LoRA of
 *   rank 8 and alpha 16 on experts beside norms and routers, attention frozen. The learning rates are ours.
 * @throws UsageError if the model has no routers and the recipe trains them.
 */
export function stagesOf(recipe: Recipe, architecture: Architecture, samples: number): RecoverStage[] {
  const parts = new Set(leavesOf(parameterSpecs(architecture)).map(partOf));
  if (recipe === 'cmoe') return [{folder: 'model', samples, train: cmoe(parts)}];
  if (!parts.has('routers')) {
    throw new UsageError('--recipe dive trains routers, and the model has none.', {hint: 'Leave --recipe out.'});
  }
  return [
    {folder: 'routers', samples: Math.ceil(samples / 10), train: diveRouters(architecture)},
    {folder: 'model', samples, train: DIVE_EXPERTS},
  ];
}

function cmoe(parts: ReadonlySet<Part>): TrainInput {
  const scales = (['scales'] as const).filter((part) => parts.has(part));
  return {
    optimizer: {lr: 5.65e-5, weightDecay: 0, ...(scales.length > 0 && {rates: {scales: SCALE_RATE}})},
    finetune: {kind: 'lora', rank: 8, alpha: 32, targets: ADAPTED.filter((part) => parts.has(part)), train: scales},
    ...(parts.has('routers') && {balance: {kind: 'bias', rate: 1e-3}}),
  };
}

function diveRouters(architecture: Architecture): TrainInput {
  const topK = Math.max(...moeLayouts(architecture).map((layout) => layout.topK));
  return {
    optimizer: {lr: 1e-3, weightDecay: 0},
    routing: {kind: 'all-experts', temperature: topK === 1 ? 0.05 : 0.5},
    finetune: {kind: 'parts', train: ['routers']},
    balance: {kind: 'none'},
  };
}

const DIVE_EXPERTS: TrainInput = {
  optimizer: {lr: 2e-4, weightDecay: 0},
  finetune: {kind: 'lora', rank: 8, alpha: 16, targets: ['experts'], train: ['norms', 'routers']},
  balance: {kind: 'none'},
};
