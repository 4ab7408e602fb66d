// What can be told of `train.routing` before a step is run.
import {type Architecture, type MoeLayout, moeLayouts} from '../../model/architecture.js';
import {ConfigError} from '../../util/errors.js';
import type {TrainOptions} from '../options.js';
import {rowsOfExpert} from './expert-choice.js';
import {numDropped} from './perturb.js';

/** What decides whether a way of routing is possible. */
export interface RoutingCase extends Pick<TrainOptions, 'routing' | 'balance' | 'capacity'> {
  readonly architecture: Architecture;
  /** T, of a pass. */
  readonly tokens: number;
}

/**
 * Refuses a way of routing that a model cannot be trained with.
 *
 * @throws ConfigError naming the key.
 */
export function requireRoutable(given: RoutingCase): void {
  const {routing, architecture} = given;
  const layouts = moeLayouts(architecture);
  if (layouts.length === 0) return;
  switch (routing.kind) {
    case 'as-is':
    case 'jitter':
    case 'noisy':
      return;
    case 'expert-dropout':
      for (const layout of layouts) requireDroppable(routing.share, layout);
      return;
    case 'all-experts':
      requireNoInner(given, layouts);
      requireDropless(given);
      return;
    case 'expert-choice':
      requireUnbalanced(given, layouts);
      requireNoInner(given, layouts);
      requirePlainScores(given);
      for (const layout of layouts) requireRows(routing.capacityFactor, given, layout);
      return;
    case 'base':
      requireTopK(given, layouts, 1);
      requireUnbalanced(given, layouts);
      return;
    case 'sparse-mixer':
      requireTopK(given, layouts, 2);
      requireDrawable(given);
      requirePlainScores(given);
      requireNoBias(routing.kind, layouts);
      return;
  }
}

function requireDroppable(share: number, {experts, topK}: MoeLayout): void {
  if (numDropped(share, experts, topK) > 0) return;
  throw new ConfigError(
    `train.routing.share: ${share} of ${experts} experts, of which a token uses ${topK}, leaves out none.`,
    {hint: topK < experts ? 'Raise it.' : 'Leave train.routing out: every token uses all of them.'},
  );
}

/** Where the choice is even by itself, what would balance it has nothing to do, and biases no say. */
function requireUnbalanced({routing, balance, capacity}: RoutingCase, layouts: readonly MoeLayout[]): void {
  const {kind} = routing;
  if (balance.kind !== 'none') {
    throw new ConfigError(
      `train.balance.kind is ${balance.kind}, but train.routing.kind ${kind} gives every expert as many tokens.`,
      {hint: 'Set train.balance.kind: none.'},
    );
  }
  requireDropless({routing, capacity});
  requireNoBias(kind, layouts);
}

function requireDropless({routing: {kind}, capacity}: Pick<RoutingCase, 'routing' | 'capacity'>): void {
  if (capacity === 'dropless') return;
  throw new ConfigError(
    `train.capacity has a factor, but train.routing.kind ${kind} gives every expert as many tokens.`,
    {hint: 'Leave train.capacity out.'},
  );
}

function requireNoBias(kind: string, layouts: readonly MoeLayout[]): void {
  if (!layouts.some(({selectionBias}) => selectionBias)) return;
  throw new ConfigError(
    `train.routing.kind: ${kind} knows no selection biases, and the model has them, or gets them from train.balance.`,
    {
      hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
    },
  );
}

function requireNoInner({routing: {kind}}: RoutingCase, layouts: readonly MoeLayout[]): void {
  if (!layouts.some(({inner}) => inner)) return;
  throw new ConfigError(`train.routing.kind: ${kind} knows no experts inside experts, and the model has them.`, {
    hint: 'Train it as-is.',
  });
}

/** What is chosen weighs its score over all experts: there is no sum over a token's own to divide by. */
function requirePlainScores({routing: {kind}, architecture: {routing}}: RoutingCase): void {
  const {weight, renormalise, order, score, topP} = routing;
  if (topP !== undefined) {
    throw new ConfigError(`train.routing.kind: ${kind} knows no top p, and the model has one.`, {
      hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
    });
  }
  if (weight === 'one-plus-scaled') {
    throw new ConfigError(`train.routing.kind: ${kind} weighs by scores, but the model by 1 + u x score.`, {
      hint: 'Train it as-is, or with jitter, noisy or expert-dropout.',
    });
  }
  if (weight === 'one' || !(renormalise || (order === 'topk-then-score' && score === 'softmax'))) return;
  throw new ConfigError(
    `train.routing.kind: ${kind} weighs by scores over all experts, but the model divides by the sum of a token's own.`,
    {hint: 'Train it as-is, or begin with a model whose weights are not renormalised.'},
  );
}

function requireTopK({routing: {kind}}: RoutingCase, layouts: readonly MoeLayout[], most: number): void {
  const topK = Math.max(...layouts.map((layout) => layout.topK));
  if (topK <= most) return;
  const words = ['no', 'one', 'two'];
  throw new ConfigError(
    `train.routing.kind: ${kind} gives each token ${words[most]} expert${most > 1 ? 's at most' : ''}, the tokens of this model use ${topK}.`,
    {hint: `Begin with a model of topK ${most}, or train it as-is.`},
  );
}

/** An expert is drawn by its softmax, and its weight is what carries the gradient. */
function requireDrawable(given: RoutingCase): void {
  const {score, weight} = given.architecture.routing;
  const found =
    score !== 'softmax' ? `scores by ${score}` : weight !== 'score' ? `weighs all chosen experts ${weight}` : null;
  if (found === null) return;
  throw new ConfigError(
    `train.routing.kind: ${given.routing.kind} draws experts by a softmax that weighs them, but the model ${found}.`,
    {hint: 'Begin with a model of score softmax and weight score, or train it as-is.'},
  );
}

function requireRows(capacityFactor: number, {tokens}: RoutingCase, layout: MoeLayout): void {
  const rows = rowsOfExpert(capacityFactor, tokens, layout);
  if (rows >= 1 && rows <= tokens) return;
  throw new ConfigError(
    `train.routing.capacityFactor: ${capacityFactor} gives each of ${layout.experts} experts ${rows} of the ${tokens} tokens of a pass.`,
    {hint: rows < 1 ? 'Raise it, or train.batch.sequences.' : 'Lower it.'},
  );
}

/** What a person should know of a way of routing, in words; null if nothing. */
export function routingNote({kind}: TrainOptions['routing'], {ffn}: Architecture): string | null {
  if (kind === 'as-is') return null;
  if (ffn.every((layout) => layout.kind === 'dense'))
    return `The model has no routers: train.routing (${kind}) is ignored.`;
  const choosers = {'expert-choice': 'Experts choose their tokens', base: 'Tokens are assigned to experts together'};
  if (!(kind in choosers)) return null;
  const how = choosers[kind as keyof typeof choosers];
  return `${how} (train.routing): later tokens take part in the choice, so the training loss looks better than it is. Validation, and the model that is saved, route each token by itself.`;
}
